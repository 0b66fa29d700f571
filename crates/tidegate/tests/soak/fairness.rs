//! Floods, and pairs of clients that are paced and polite beside them: a flood must not starve them of their worker.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mqtt::packet::{Packet, Publish};
use mqtt::{PacketId, QoS, Version};

use crate::harness::device::{Device, ack, connect, message};
use crate::harness::wait::now;
use crate::subject;

/// Between two messages of a pair.
const PACE: Duration = Duration::from_millis(4);
/// Bytes that a flood writes at once.
const GUSH: usize = 64 * 1024;
/// QoS 1 messages that a flood has on their way.
const UNACKNOWLEDGED: usize = 10_000;

/// What is added to the nice value of a flood's thread.
const YIELDS: i32 = 10;

/// A round trip takes less than this in the middle, and less than that at the 99th percentile, whatever others send. A build without
/// optimisation needs twenty times as long for a turn.
const BOUNDS: (Duration, Duration) = if cfg!(debug_assertions) {
    (Duration::from_millis(200), Duration::from_secs(1))
} else {
    (Duration::from_millis(10), Duration::from_millis(50))
};
/// The share of its time that a worker may wait for a core.
const CROWDED: f64 = 0.15;
/// A shared machine has bad seconds; a worker that starves its clients does so every time.
const TRIES: u32 = 3;
/// Tries in which they may starve: one stall of the machine is no verdict.
const STARVED: u32 = 1;

/// Sends QoS 0 as fast as the socket takes it; how many messages.
pub(crate) fn flood(to: SocketAddr, name: &str, stop: &AtomicBool) -> u64 {
    let mut device = Device::dial(to);
    device.hello(&connect(Version::V311, name));
    let mut one = Vec::new();
    let publish = Packet::Publish(message(&format!("f/{name}"), "sixteen bytes...", QoS::AtMostOnce));
    mqtt::codec::encode::encode(&publish, Version::V311, &mut one).expect("a packet");
    let count = GUSH / one.len();
    let gush = one.repeat(count);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        device.send_bytes(&gush);
        sent += count as u64;
    }
    device.goodbye();
    sent
}

/// Sends QoS 1 as fast as it is acknowledged, many at a time; how many messages. Acknowledgements come in order and all.
pub(crate) fn flood_acknowledged(to: SocketAddr, name: &str, stop: &AtomicBool) -> u64 {
    let mut device = Device::dial(to);
    device.hello(&connect(Version::V311, name));
    let topic = format!("f/{name}");
    let ids = || (1..=u16::MAX).cycle().map(|id| PacketId::new(id).expect("not 0"));
    let (mut next, mut expected) = (ids(), ids());
    let (mut sent, mut acknowledged) = (0, 0);
    let mut take = |device: &mut Device, acknowledged: &mut u64| {
        let id = expected.next().expect("endless");
        assert_eq!(device.receive(), Packet::Puback(ack(id)), "[MQTT-4.6.0-2]");
        *acknowledged += 1;
    };
    while !stop.load(Ordering::Relaxed) {
        let mut gush = Vec::new();
        while gush.len() < GUSH {
            let message = message(&topic, "sixteen bytes...", QoS::AtLeastOnce);
            let publish = Packet::Publish(Publish { packet_id: next.next(), ..message });
            mqtt::codec::encode::encode(&publish, Version::V311, &mut gush).expect("a packet");
            sent += 1;
        }
        device.send_bytes(&gush);
        while sent - acknowledged > UNACKNOWLEDGED as u64 {
            take(&mut device, &mut acknowledged);
        }
    }
    while acknowledged < sent {
        take(&mut device, &mut acknowledged);
    }
    device.goodbye();
    sent
}

/// One sends, the other gets everything in order; how long each message took.
pub(crate) fn pair(to: SocketAddr, name: &str, stop: &AtomicBool) -> Vec<Duration> {
    let mut reader = Device::dial(to);
    reader.hello(&connect(Version::V5, &format!("{name}-reader")));
    let topic = format!("pair/{name}");
    reader.subscribe(&topic, QoS::AtLeastOnce);
    let mut sender = Device::dial(to);
    sender.hello(&connect(Version::V311, &format!("{name}-sender")));
    let mut took = Vec::new();
    let mut due = now();
    while !stop.load(Ordering::Relaxed) {
        due = (due + PACE).max(now());
        // sleep: the pace is what these clients are
        std::thread::sleep(due.saturating_duration_since(now()));
        let number = u16::try_from(took.len() % 60_000 + 1).expect("small");
        let qos = if number % 2 == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let id = PacketId::new(number).filter(|_| qos > QoS::AtMostOnce);
        let text = took.len().to_string();
        let since = now();
        sender.send(&Packet::Publish(Publish { packet_id: id, ..message(&topic, &text, qos) }));
        let got = reader.message();
        took.push(now().saturating_duration_since(since));
        assert_eq!(got.payload, text.as_bytes(), "the next message of the pair {name}");
        if let Some(id) = id {
            assert_eq!(sender.receive(), Packet::Puback(ack(id)));
        }
    }
    sender.goodbye();
    reader.goodbye();
    took
}

/// Round trips by rank.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trips {
    count: usize,
    middle: Duration,
    p99: Duration,
    worst: Duration,
}

impl Trips {
    pub(crate) fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |share: usize| took.get((took.len() * share / 1000).min(took.len().saturating_sub(1)));
        let rank = |share| at(share).copied().unwrap_or_default();
        Self { count: took.len(), middle: rank(500), p99: rank(990), worst: rank(1000) }
    }
}

impl fmt::Display for Trips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, middle, p99, worst } = self;
        write!(f, "{count} round trips: p50 {middle:.1?}, p99 {p99:.1?}, worst {worst:.1?}")
    }
}

/// Floods with polite pairs beside them: an error if they starve more than once. Nothing is judged where the workers themselves have to wait
/// for a core: then the machine's own unfairness is measured.
pub(crate) fn judge(to: SocketAddr, pid: u32, time: Duration) -> Result<(), String> {
    let mut starved = 0;
    for _ in 0..TRIES {
        let before = subject::workers(pid);
        let (trips, flooded) = act(to, time / TRIES, 4, 4);
        let (mut ran, mut waited) = (0.0, 0.0);
        for (after, before) in subject::workers(pid).iter().zip(&before) {
            ran += (after.0 - before.0).as_secs_f64();
            waited += (after.1 - before.1).as_secs_f64();
        }
        let share = waited / (ran + waited).max(f64::MIN_POSITIVE);
        println!(
            "  four floods, {flooded} messages; beside them {trips}; workers waited {:.0} %",
            share * 100.0
        );
        if trips.middle <= BOUNDS.0 && trips.p99 <= BOUNDS.1 {
            continue;
        }
        if share > CROWDED {
            println!("  not judged: the machine is too busy");
            continue;
        }
        starved += 1;
        if starved > STARVED {
            return Err(format!("floods starve polite clients: {trips}, bounds {BOUNDS:?}"));
        }
    }
    Ok(())
}

/// What a number of floods and pairs do in a time.
pub(crate) fn act(to: SocketAddr, time: Duration, floods: usize, pairs: usize) -> (Trips, u64) {
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let trips = std::thread::scope(|scope| {
        let (stop, sent) = (&stop, &sent);
        for number in 0..floods {
            scope.spawn(move || {
                // what is measured is the broker's fairness, not the scheduler's: the broker finds its sockets full all the same
                let _ = rustix::process::nice(YIELDS);
                let count = if number % 2 == 0 {
                    flood(to, &format!("flood-{number}"), stop)
                } else {
                    flood_acknowledged(to, &format!("flood-{number}"), stop)
                };
                sent.fetch_add(count, Ordering::Relaxed);
            });
        }
        let pairs: Vec<_> =
            (0..pairs).map(|number| scope.spawn(move || pair(to, &format!("p{number}"), stop))).collect();
        // sleep: so long is the act
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        pairs.into_iter().flat_map(|pair| pair.join().expect("a pair that got everything")).collect()
    });
    (Trips::of(trips), sent.into_inner())
}
