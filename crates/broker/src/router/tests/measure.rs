//! Memory and speed. Sizes are checked always; times are printed on request, in a release build:
//! `cargo test --release -p broker router -- --ignored --nocapture --test-threads 1`.

use std::hint::black_box;
use std::time::Instant;

use super::*;

fn devices(count: u32, filter: impl Fn(u32) -> String) -> Router {
    let router = Router::new();
    for device in 0..count {
        router.subscribe(&filter(device), passing(device.into()), wanting(QoS::AtLeastOnce));
    }
    router
}

#[test]
fn a_device_with_its_own_filter_costs_less_than_150_bytes() {
    const DEVICES: u32 = 100_000;
    let empty = Router::new().census().2;
    for filter in [
        "devices/dev-{}/cmd",
        "devices/dev-{}/#",
        "v1/devices/{}/rpc/request/+",
        "device/0b5a7c1e-9d43-4f6a-8e21-3c5{}0/command/+",
        "{}",
    ] {
        let router = devices(DEVICES, |device| filter.replace("{}", &format!("{device:07}")));
        let bytes = (router.census().2 - empty) as f64 / f64::from(DEVICES);
        println!("{filter}: {bytes:.1} bytes, {:.2} nodes", router.census().0 as f64 / f64::from(DEVICES));
        assert!(bytes <= 150.0, "{filter}: {bytes} bytes");
    }
}

#[expect(clippy::disallowed_methods, reason = "measures the machine; nothing is decided by it")]
fn nanoseconds(what: &str, times: u32, mut once: impl FnMut(u32)) {
    let start = Instant::now();
    (0..times).for_each(&mut once);
    println!("{what}: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(times));
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

/// A permutation of device numbers, so that nothing is read in the order it was written.
fn scattered(i: u32) -> u32 {
    (u64::from(i) * 387_420_489 % 1_000_000) as u32
}

#[test]
#[ignore = "prints times; for a release build on a quiet machine"]
fn times_with_a_million_filters() {
    const DEVICES: u32 = 1_000_000;
    let before = resident();
    let mut router = Router::new();
    nanoseconds("subscribe", DEVICES, |device| {
        let filter = format!("devices/dev-{device:07}/cmd");
        router.subscribe(&filter, passing(device.into()), wanting(QoS::AtLeastOnce));
    });
    println!("resident: {} bytes per filter", (resident() - before) / u64::from(DEVICES));
    for filter in ["devices/+/state", "+/+/cmd", "devices/#"] {
        router.subscribe(filter, passing(5_000_000), wanting(QoS::AtMostOnce));
    }
    let topics: Vec<_> = (0..DEVICES).map(|i| format!("devices/dev-{:07}/cmd", scattered(i))).collect();
    let mut scratch = Vec::new();
    nanoseconds("match, uncached", DEVICES, |i| {
        black_box(router.matching(&topics[i as usize], &mut scratch));
    });
    let mut cache = RouteCache::new(65_536);
    nanoseconds("lookup, never seen before", DEVICES, |i| {
        black_box(cache.lookup(&router, &topics[i as usize]));
    });
    for (name, working_set) in [("1", 1), ("100", 100), ("10,000", 10_000), ("60,000", 60_000)] {
        let mut cache = RouteCache::new(65_536);
        topics[..working_set].iter().for_each(|topic| drop(cache.lookup(&router, topic)));
        nanoseconds(&format!("lookup, cached, of {name} topics"), 3_000_000, |i| {
            black_box(cache.lookup(&router, &topics[i as usize % working_set]));
        });
    }
    nanoseconds("relocate", DEVICES, |i| {
        let address = Some(Address { worker: 1, slot: i });
        router.relocate([topics[i as usize].as_str()], SessionKey(scattered(i).into()), address);
    });
    nanoseconds("unsubscribe", DEVICES, |i| {
        assert!(router.unsubscribe(&topics[i as usize], SessionKey(scattered(i).into())));
    });
    router = Router::new();
    nanoseconds("subscribe to one filter", DEVICES, |device| {
        router.subscribe("news/#", passing(device.into()), wanting(QoS::AtMostOnce));
    });
    nanoseconds("match a million receivers", 5, |_| {
        black_box(router.matching("news/today", &mut scratch));
    });
    nanoseconds("leave one filter", DEVICES, |i| {
        assert!(router.unsubscribe("news/#", SessionKey(scattered(i).into())));
    });
}
