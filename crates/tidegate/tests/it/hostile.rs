//! Attacks on a bound: what the peer takes more than its share of, where that ends, and that nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt::codec::encode::encode;
use mqtt::packet::{Connect, ConnectProperties, Packet};
use mqtt::{QoS, ReasonCode, Version};
use socket2::SockRef;

use crate::harness::{Device, Process, Site, Tidegate, device, eventually, http};

/// Resident memory in MiB.
fn memory(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Descriptors that are open.
fn descriptors(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.id())).expect("a living process").count()
}

/// A CONNECT as bytes.
fn hello(connect: &Connect<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&Packet::Connect(Box::new(connect.clone())), connect.version, &mut bytes).expect("a packet");
    bytes
}

/// A CONNECT of a session that is to be kept.
fn kept(version: Version, clientid: &str) -> Connect<'static> {
    Connect {
        clean_start: false,
        properties: ConnectProperties { session_expiry_interval: Some(600), ..ConnectProperties::default() },
        ..device::connect(version, clientid)
    }
}

/// Connects and sends these bytes.
fn attack(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.write_all(bytes).expect("a new connection takes a little");
    stream
}

/// Ends a connection as a crash does.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket option");
    drop(stream);
}

/// Writes the bytes again and again until the peer takes no more for a while, or so many MiB are written.
fn pour(stream: &mut TcpStream, bytes: &[u8], most: usize) {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a socket option");
    for _ in 0..(most << 20) / bytes.len() {
        match stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn unharmed(broker: &Tidegate) {
    assert_eq!(broker.process.err.count(&["panicked"]), 0);
    let mut other = Device::connect(broker.mqtt(), &device::connect(Version::V5, "other"));
    other.subscribe("other", QoS::AtLeastOnce);
    other.send(&Packet::Publish(device::message("other", "it works", QoS::AtMostOnce)));
    assert_eq!(device::payload(&other.message()), "it works");
    other.goodbye();
}

/// Each request is answered, no answer is read: the requests wait in the kernel, not in the broker.
#[test]
fn answers_that_are_not_read_cost_a_bounded_amount() {
    let broker = Tidegate::broker("node1");
    let before = memory(&broker.process);
    let release = [0x62, 2, 0, 7].repeat(16 * 1024);
    let ping = [0xC0, 0].repeat(32 * 1024);
    let mut held = Vec::new();
    for (number, bytes) in [ping, release].iter().enumerate() {
        let connect = device::connect(Version::V311, &format!("flood-{number}"));
        let mut stream = attack(broker.mqtt(), &hello(&connect));
        pour(&mut stream, bytes, 64);
        held.push(stream);
    }
    let grown = memory(&broker.process).saturating_sub(before);
    assert!(grown < 24, "{grown} MiB for two that ask and do not listen");
    unharmed(&broker);
    drop(held);
    eventually("they are gone", || (broker.metric("tidegate_broker_connections") == 0.0).then_some(()));
}

/// At the bound of the register a session that is to be kept is refused, with its reason where there is one; whoever is there
/// goes on, and nothing is left waiting.
#[test]
fn sessions_without_number_end_at_the_bound_of_the_register() {
    let section = "[engine]\nmax_register_bytes = \"1MiB\"";
    let mut broker = Site::new("node1").broker("", section).start();
    let mut refused = 0;
    for round in 0..8 {
        let names = (0..50).map(|number| format!("{number}-{round}{}", "-".repeat(10_000)));
        let mut streams: Vec<_> =
            names.map(|name| attack(broker.mqtt(), &hello(&kept(Version::V311, &name)))).collect();
        for stream in &mut streams {
            stream.set_read_timeout(Some(crate::harness::DEADLINE)).expect("a socket option");
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).expect("a CONNACK");
            // 3 is Server unavailable [MQTT-3.2.2-4] of version 3.1.1
            refused += usize::from(answer == [0x20, 2, 0, 3]);
        }
        if refused > 50 {
            break;
        }
    }
    assert!(refused > 50, "{refused}");
    let mut last = Device::dial(broker.mqtt());
    last.say_hello(&kept(Version::V5, &"last".repeat(5_000)));
    last.expect_refusal(ReasonCode::QuotaExceeded);
    unharmed(&broker);
    eventually("nothing is left", || (broker.metric("tidegate_broker_connections") == 0.0).then_some(()));
    assert!(broker.terminate().success());
}

/// A hundred connections want one client id at once, in all versions, on both workers, some of them broken at once: one has it
/// in the end [MQTT-3.1.4-3].
#[test]
fn a_storm_of_takeovers_leaves_one_connection() {
    let broker = Tidegate::broker("node1");
    for _ in 0..2 {
        let mut streams = Vec::new();
        for number in 0..100 {
            let version = [Version::V31, Version::V311, Version::V5][number % 3];
            let connect =
                if number % 2 == 0 { kept(version, "one") } else { device::connect(version, "one") };
            let stream = attack(broker.mqtt(), &hello(&connect));
            if number % 7 == 0 { reset(stream) } else { streams.push(stream) }
        }
        eventually("the storm is over", || {
            (broker.metric("tidegate_broker_connections") <= 1.0).then_some(())
        });
        let mut winner = Device::connect(broker.mqtt(), &device::connect(Version::V5, "one"));
        eventually("one is left", || (broker.metric("tidegate_broker_connections") == 1.0).then_some(()));
        winner.nothing_more();
        winner.goodbye();
        drop(streams);
        eventually("it is gone", || (broker.client("one").is_none()).then_some(()));
    }
    unharmed(&broker);
}

/// Five hundred devices lose their network at once: every will is published, once [MQTT-3.1.2-8].
#[test]
fn a_storm_of_wills_reaches_who_listens() {
    let broker = Tidegate::broker("node1");
    let mut listener = Device::connect(broker.mqtt(), &device::connect(Version::V311, "listener"));
    listener.subscribe("gone/#", QoS::AtLeastOnce);
    let devices: Vec<_> = (0..500)
        .map(|number| {
            let mut connect = device::connect(Version::V311, &format!("device-{number}"));
            connect.will = Some(device::will(&format!("gone/{number}"), "gone"));
            let mut stream = attack(broker.mqtt(), &hello(&connect));
            stream.read_exact(&mut [0; 4]).expect("a CONNACK");
            stream
        })
        .collect();
    devices.into_iter().for_each(reset);
    let mut topics: Vec<_> = (0..500).map(|_| listener.message().topic.into_owned()).collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 500);
    listener.nothing_more();
    eventually("all are gone", || (broker.metric("tidegate_broker_connections") == 1.0).then_some(()));
}

/// Without descriptors accepting rests and does not spin; when some are free again, those who waited are served.
#[test]
fn without_descriptors_accepting_rests_and_then_goes_on() {
    let site = Site::new("node1").broker("", "");
    let plain = site.command();
    let mut limited = Command::new("sh");
    limited
        .arg("-c")
        .arg("ulimit -n 100 && exec \"$0\" \"$@\"")
        .arg(plain.get_program())
        .args(plain.get_args());
    let broker = site.start_command(&mut limited);
    let connect = |number: usize| hello(&device::connect(Version::V311, &format!("many-{number}")));
    let mut devices: Vec<_> = (0..150).map(|number| attack(broker.mqtt(), &connect(number))).collect();
    eventually("the descriptors are used up", || (descriptors(&broker.process) >= 100).then_some(()));
    let before = cpu_time(&broker.process);
    // Those that are served have their answer; the first that waits shows what waiting costs.
    let waits = devices.iter_mut().position(|device| {
        device.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket option");
        device.read_exact(&mut [0; 4]).is_err()
    });
    let mut waiting = devices.swap_remove(waits.expect("somebody waits"));
    let used = cpu_time(&broker.process) - before;
    assert!(used < 30, "{used} hundredths of a second of work in a second of rest");
    drop(devices);
    waiting.set_read_timeout(Some(crate::harness::DEADLINE)).expect("a socket option");
    waiting.read_exact(&mut [0; 4]).expect("a CONNACK");
    unharmed(&broker);
}

/// Hundredths of a second of processor time.
fn cpu_time(process: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("a living process");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// A thousand that say nothing cost little, end at their time, and leave nothing.
#[test]
fn silence_at_the_gateway_ends_at_its_time() {
    let site = Site::new("node1");
    let nobody = site.mqtt();
    let gateway = site.gateway("preread_timeout = \"1s\"", "", &[("node1", nobody)]).start();
    let (files, before) = (descriptors(&gateway.process), memory(&gateway.process));
    let mut silent: Vec<_> = (0..1_000).map(|_| attack(gateway.gate(), b"\x10")).collect();
    let grown = memory(&gateway.process).saturating_sub(before);
    assert!(grown < 16, "{grown} MiB for a thousand that say nothing");
    for stream in &mut silent {
        stream.set_read_timeout(Some(crate::harness::DEADLINE)).expect("a socket option");
        assert_eq!(stream.read(&mut [0; 4]).expect("the end"), 0);
    }
    eventually("no descriptor is left", || (descriptors(&gateway.process) <= files + 2).then_some(()));
}

/// A stop in the middle of floods takes its time and no more, and ends well.
#[test]
fn a_stop_in_the_middle_of_floods_ends_in_time() {
    let mut broker = Tidegate::broker("node1");
    let (to, over) = (broker.mqtt(), AtomicBool::new(false));
    let status = std::thread::scope(|scope| {
        for flooder in 0..4 {
            let over = &over;
            scope.spawn(move || flood(to, flooder, over));
        }
        eventually("the floods have begun", || {
            (broker.metric("tidegate_broker_connections") > 100.0).then_some(())
        });
        broker.process.signal(rustix::process::Signal::TERM);
        let status = broker.process.end_within(Duration::from_secs(10));
        over.store(true, Ordering::Relaxed);
        status
    });
    assert!(status.success(), "{status}");
    assert_eq!(broker.process.err.count(&["panicked"]), 0);
}

/// Connects again and again, publishes to subscribers that do not read, until it is over or nobody listens.
fn flood(to: SocketAddr, flooder: usize, over: &AtomicBool) {
    let mut streams = Vec::new();
    for number in 0..500 {
        let version = if number % 2 == 0 { Version::V311 } else { Version::V5 };
        let mut bytes = hello(&kept(version, &format!("flooder-{flooder}-{number}")));
        let subscribe: &[u8] =
            if number % 2 == 0 { b"\x82\x06\0\x01\0\x01#\x01" } else { b"\x82\x07\0\x01\0\0\x01#\x01" };
        bytes.extend_from_slice(subscribe);
        let Ok(mut stream) = TcpStream::connect(to) else { return };
        stream.set_nonblocking(true).expect("a socket option");
        let _ = stream.write(&bytes);
        streams.push(stream);
        for stream in &mut streams {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let _ = stream.write(b"\x32\x06\0\x01a\0\x01x");
        }
    }
    while !over.load(Ordering::Relaxed) {
        for stream in &mut streams {
            let _ = stream.write(b"\xC0\0");
        }
    }
}

/// Pages of a list that is far longer than what is gathered at once have every session, once, in order.
#[test]
fn a_list_of_many_stored_sessions_is_whole() {
    let broker = Tidegate::broker("node1");
    for round in 0..3 {
        let names = (0..500).map(|number| format!("kept-{:04}", (number * 7 + round) % 1_500));
        let mut streams: Vec<_> =
            names.map(|name| attack(broker.mqtt(), &hello(&kept(Version::V311, &name)))).collect();
        for stream in &mut streams {
            stream.set_read_timeout(Some(crate::harness::DEADLINE)).expect("a socket option");
            stream.read_exact(&mut [0; 4]).expect("a CONNACK");
        }
    }
    eventually("all are away", || (broker.metric("tidegate_broker_connections") == 0.0).then_some(()));
    let offline = broker.metric("tidegate_broker_sessions_offline");
    assert!(offline > 1_000.0, "{offline}");
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = http::get(broker.api(), &format!("/api/v1/clients?limit=90{cursor}")).body;
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        for client in page["data"].as_array().expect("a list") {
            names.push(client["clientid"].as_str().expect("text").to_owned());
        }
        match page["meta"]["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), offline as usize);
    assert!(names.is_sorted_by(|a, b| a < b));
}
