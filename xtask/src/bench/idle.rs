//! What an idle connection through a balancer costs in memory: a client id of 23 bytes, one subscription, silence.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

/// Connections that are held; each takes two descriptors of the balancer.
const CONNECTIONS: usize = 8_000;
/// CONNACK and SUBACK of MQTT 3.1.1.
const ANSWERS: usize = 4 + 5;
/// Time for what is freed with a delay.
const SETTLE: Duration = Duration::from_secs(2);

/// Proportional set size that the process and its children grew by, for each connection.
pub(super) fn bytes_per_connection(port: u16, pid: u32) -> Result<f64, String> {
    let before = memory(pid)?;
    let mut held = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        held.push(open(port, number).map_err(|error| format!("connection {number}: {error}"))?);
    }
    thread::sleep(SETTLE);
    let after = memory(pid)?;
    Ok((after as f64 - before as f64) / held.len() as f64)
}

fn open(port: u16, number: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&connect(number))?;
    let mut answers = [0; ANSWERS];
    stream.read_exact(&mut answers[..4])?;
    stream.write_all(&subscribe(number))?;
    stream.read_exact(&mut answers[4..])?;
    let well = answers[..2] == [0x20, 2] && answers[3] == 0 && answers[4..6] == [0x90, 3];
    if well { Ok(stream) } else { Err(std::io::Error::other(format!("answered {answers:02x?}"))) }
}

/// CONNECT of MQTT 3.1.1: clean session, no keep alive.
fn connect(number: usize) -> Vec<u8> {
    let mut packet = vec![0x10, 10 + 2 + 23, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 23];
    packet.extend_from_slice(format!("bench-device-{number:010}").as_bytes());
    packet
}

/// SUBSCRIBE of one filter at QoS 0.
fn subscribe(number: usize) -> Vec<u8> {
    let filter = format!("bench/{number:010}/commands");
    let length = u8::try_from(filter.len()).unwrap_or(0);
    let mut packet = vec![0x82, length + 5, 0, 1, 0, length];
    packet.extend_from_slice(filter.as_bytes());
    packet.push(0);
    packet
}

/// Proportional set size of a process and its children, in bytes.
fn memory(pid: u32) -> Result<u64, String> {
    let mut sum = size_of(pid)?;
    for child in children(pid) {
        sum += size_of(child)?;
    }
    Ok(sum)
}

fn size_of(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    pss(&text).ok_or_else(|| format!("{path} tells no Pss"))
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// The children of every thread; theirs are not looked for, because no balancer here has any.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_say_their_length() {
        for number in [0, CONNECTIONS] {
            for packet in [connect(number), subscribe(number)] {
                assert_eq!(usize::from(packet[1]), packet.len() - 2, "{packet:02x?}");
            }
        }
        assert_eq!(connect(7)[14..], *b"bench-device-0000000007");
    }

    #[test]
    fn memory_is_the_proportional_set_size() {
        assert_eq!(pss("7f-7f ---p [rollup]\nRss: 9 kB\nPss:    5 kB\nPss_Anon: 1 kB\n"), Some(5 << 10));
        assert!(memory(std::process::id()).unwrap() > 0);
    }
}
