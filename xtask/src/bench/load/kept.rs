//! What a broker keeps: retained messages, and messages that wait for a subscriber that is away or does not acknowledge.

use std::ops::Range;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::process::now;
use super::crowd::{Crowd, Seen};
use super::usage::Watched;
use super::wire::{self, Connect, DISCONNECT, Form, Stamp};
use super::{Options, server_of, settle};

/// Messages of a publisher that wait for their acknowledgement: below what any broker allows.
const INFLIGHT: u64 = 20;
/// Without anything for so long, nothing more comes.
const SILENCE: Duration = Duration::from_secs(5);
/// Times that everything retained is asked for.
const ROUNDS: usize = 3;

/// `--n`, `--size`: so many retained messages; then a new client takes all of them, some times.
pub(super) fn retained(options: &Options, watched: Watched) -> Result<Value, String> {
    let count = options.count("n", 100_000)? as u64;
    let mut crowd = Crowd::new(server_of(options)?)?;
    let form = form(&crowd, options, true)?;
    let topic = |number| format!("kept/{}/{number}", number / 1_000);
    let filled = fill(&mut crowd, watched, &form, count, topic)?;
    let emptied = empty(watched, count * ROUNDS as u64, || {
        let mut taken = 0;
        for _ in 0..ROUNDS {
            let client = crowd.gather(1, |_| Vec::new(), 0)?.start;
            let request = wire::subscribe(1, &["kept/#".to_owned()], 0, crowd.version());
            crowd.send(client, &request);
            taken += take(&mut crowd, client..client + 1, count)?;
            crowd.hang_up(client);
        }
        Ok(taken)
    })?;
    Ok(answer(&filled, count, &emptied))
}

/// `--n`, `--size`: so many messages for a session whose client is away; then it comes and takes them.
pub(super) fn offline(options: &Options, watched: Watched) -> Result<Value, String> {
    let count = options.count("n", 100_000)? as u64;
    let mut crowd = Crowd::new(server_of(options)?)?;
    let version = crowd.version();
    let connect = move |_: usize, _: &str| {
        Connect { client_id: "sleeper", version, clean: false, will: None, receive_maximum: u16::MAX }.bytes()
    };
    let sleeper = crowd.assemble(1, connect, |_| vec!["wait/#".to_owned()], 1)?.start;
    crowd.send(sleeper, &DISCONNECT);
    wait_for_close(&mut crowd, sleeper)?;
    let form = form(&crowd, options, false)?;
    let filled = fill(&mut crowd, watched, &form, count, |number| format!("wait/{}", number % 100))?;
    let emptied = empty(watched, count, || {
        // Its messages come right behind CONNACK.
        let sleeper = crowd.dial(connect(0, ""))?;
        take(&mut crowd, sleeper..sleeper + 1, count)
    })?;
    Ok(answer(&filled, count, &emptied))
}

/// `--n`, `--size`, `--subs`: messages for connected subscribers that take ten each and acknowledge none.
pub(super) fn unacknowledged(options: &Options, watched: Watched) -> Result<Value, String> {
    const TAKEN: u64 = 10;
    let (count, subs) = (options.count("n", 90_000)? as u64, options.count("subs", 10)?.max(1));
    let mut server = server_of(options)?;
    server.version = wire::Version::V5; // only there a client can say how many it takes
    let mut crowd = Crowd::new(server)?;
    let connect = |_: usize, id: &str| {
        let receive_maximum = TAKEN as u16;
        Connect { client_id: id, version: server.version, clean: true, will: None, receive_maximum }.bytes()
    };
    let receivers = crowd.assemble(subs, connect, |place| vec![format!("slow/{place}")], 1)?;
    let form = form(&crowd, options, false)?;
    let topic = |number| format!("slow/{}", number % subs as u64);
    let filled = fill(&mut crowd, watched, &form, count, topic)?;
    let waiting = count.saturating_sub(TAKEN * receivers.len() as u64).max(1);
    Ok(json!({ "waiting": waiting, "bytes_per_message": filled.growth as f64 / waiting as f64 }))
}

/// What it took to put messages into a broker.
struct Filled {
    cpu_secs: f64,
    /// Bytes of memory more than before.
    growth: u64,
}

/// Puts `count` messages into the broker, from a client of their own.
fn fill(
    crowd: &mut Crowd,
    watched: Watched,
    form: &Form,
    count: u64,
    topic: impl Fn(u64) -> String,
) -> Result<Filled, String> {
    let publisher = crowd.gather(1, |_| Vec::new(), 0)?.start;
    settle();
    let (memory, cpu) = (watched.memory()?, watched.cpu_secs()?);
    publish(crowd, &[publisher], form, count, topic)?;
    let cpu_secs = watched.cpu_secs()? - cpu;
    settle();
    Ok(Filled { cpu_secs, growth: watched.memory()?.saturating_sub(memory) })
}

/// What it took to get messages out again.
struct Emptied {
    cpu_secs: f64,
    taken: u64,
    expected: u64,
}

fn empty(
    watched: Watched,
    expected: u64,
    take: impl FnOnce() -> Result<u64, String>,
) -> Result<Emptied, String> {
    let cpu = watched.cpu_secs()?;
    let taken = take()?;
    Ok(Emptied { cpu_secs: watched.cpu_secs()? - cpu, taken, expected })
}

fn answer(filled: &Filled, count: u64, emptied: &Emptied) -> Value {
    let Emptied { cpu_secs, taken, expected } = *emptied;
    json!({
        "expected": expected, "delivered": taken, "lost": expected.saturating_sub(taken),
        "store_us": filled.cpu_secs * 1e6 / count as f64,
        "bytes_per_message": filled.growth as f64 / count as f64,
        "cpu_s_per_M": cpu_secs * 1e6 / taken.max(1) as f64,
    })
}

fn form(crowd: &Crowd, options: &Options, retain: bool) -> Result<Form, String> {
    let size = options.count("size", 64)?;
    Ok(Form { version: crowd.version(), qos: 1, retain, size, properties: Vec::new() })
}

/// Publishes `count` messages at QoS 1, in turn from `publishers`, and waits until all are acknowledged.
fn publish(
    crowd: &mut Crowd,
    publishers: &[usize],
    form: &Form,
    count: u64,
    topic: impl Fn(u64) -> String,
) -> Result<(), String> {
    let (mut sent, mut acknowledged) = (0, 0);
    let mut last = now();
    while acknowledged < count {
        let room = INFLIGHT * publishers.len() as u64;
        if sent - acknowledged <= room / 2 {
            while sent < count && sent - acknowledged < room {
                let client = publishers[(sent % publishers.len() as u64) as usize];
                let stamp = Stamp { publisher: 0, number: sent as u32, nanos: 0 };
                crowd.publish(client, form, &topic(sent), (sent % 60_000) as u16 + 1, &stamp);
                sent += 1;
            }
        }
        let before = acknowledged;
        crowd.turn(Duration::from_millis(20), &mut |_, client, seen| {
            match seen {
                Seen::Packet(wire::PUBACK, body) => {
                    if let Some(code) = body.get(2).filter(|&&code| code >= 0x80) {
                        return Err(format!("PUBACK with code {code} after {acknowledged} messages"));
                    }
                    acknowledged += 1;
                }
                Seen::Closed if publishers.contains(&client) => {
                    return Err(format!("the publisher was sent away after {acknowledged} messages"));
                }
                Seen::Packet(..) | Seen::Closed => {}
            }
            Ok(())
        })?;
        if acknowledged > before {
            last = now();
        } else if now() > last + SILENCE {
            return Err(format!("{acknowledged} of {count} messages were acknowledged, then no more"));
        }
    }
    Ok(())
}

/// Takes what comes for `clients` until `count` messages were there or nothing more comes.
fn take(crowd: &mut Crowd, clients: Range<usize>, count: u64) -> Result<u64, String> {
    let (mut taken, mut last) = (0, now());
    while taken < count && now() < last + SILENCE {
        let before = taken;
        crowd.turn(Duration::from_millis(20), &mut |crowd, client, seen| {
            let Seen::Packet(first, body) = seen else { return Ok(()) };
            if first & 0xf0 == wire::PUBLISH && clients.contains(&client) {
                taken += 1;
                let arrival = wire::arrival(first, body, crowd.version()).ok_or("a PUBLISH cut short")?;
                if let Some(id) = arrival.packet_id {
                    crowd.send(client, &wire::puback(id));
                }
            }
            Ok(())
        })?;
        if taken > before {
            last = now();
        }
    }
    Ok(taken)
}

/// Waits until the server has closed the connection of a client that said good-bye.
fn wait_for_close(crowd: &mut Crowd, which: usize) -> Result<(), String> {
    let (mut closed, deadline) = (false, now() + SILENCE);
    while !closed {
        crowd.turn(Duration::from_millis(20), &mut |_, client, seen| {
            closed |= client == which && matches!(seen, Seen::Closed);
            Ok(())
        })?;
        if now() > deadline {
            return Err("the server does not close after DISCONNECT".to_owned());
        }
    }
    Ok(())
}
