//! What the memory engine costs: `cargo bench -p engine`.
//!
//! Round trip: one operation, and the submitter sleeps until it is answered (two wake-ups of threads). Pipelined: eight
//! batches of 64 operations are outstanding, as from a busy worker.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::memory::{MemoryConfig, MemoryEngine};
use engine::{Arrival, DedupeId, Engine, Inbox, Key, Op, Port, Pos, Shard, Token, Write};

const BATCH: u64 = 64;
const OUTSTANDING: u64 = 8 * BATCH;

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Counts what arrives.
#[derive(Default)]
struct Counter {
    count: Mutex<(u64, u64)>,
    arrived: Condvar,
}

impl Inbox for Counter {
    fn deliver(&self, batch: Vec<Arrival>) {
        let done = batch.iter().filter(|a| matches!(a, Arrival::Done { result: Ok(_), .. })).count() as u64;
        let mut count = self.count.lock().expect("nobody panics");
        count.0 += done;
        count.1 += 1;
        drop(count);
        self.arrived.notify_one();
    }
}

impl Counter {
    fn wait(&self, answers: u64) {
        let count = self.count.lock().expect("nobody panics");
        drop(self.arrived.wait_while(count, |c| c.0 < answers).expect("nobody panics"));
    }
}

struct Bench {
    engine: Arc<MemoryEngine>,
    inbox: Arc<Counter>,
    port: Port,
}

impl Bench {
    fn new() -> Self {
        let engine = MemoryEngine::new(MemoryConfig::default(), now);
        let inbox = Arc::new(Counter::default());
        let port = engine.attach(Arc::clone(&inbox) as Arc<dyn Inbox>);
        Self { engine, inbox, port }
    }

    fn round_trips(&self, name: &str, n: u64, op: impl Fn(u64) -> Op) {
        let begin = now();
        for token in 0..n {
            self.engine.submit(self.port, vec![(token, op(token))]);
            self.inbox.wait(token + 1);
        }
        report(name, n, begin.elapsed(), n);
    }

    fn pipelined(&self, name: &str, n: u64, op: impl Fn(u64) -> Op) {
        let begin = now();
        for first in (0..n).step_by(BATCH as usize) {
            let batch: Vec<(Token, Op)> = (first..first + BATCH).map(|token| (token, op(token))).collect();
            self.engine.submit(self.port, batch);
            self.inbox.wait((first + BATCH).saturating_sub(OUTSTANDING));
        }
        self.inbox.wait(n);
        let deliveries = self.inbox.count.lock().expect("nobody panics").1;
        report(name, n, begin.elapsed(), deliveries);
    }
}

fn report(name: &str, n: u64, took: Duration, deliveries: u64) {
    let each = took.as_secs_f64() * 1e6 / n as f64;
    println!("{name:<52} {each:>8.2} us each, {:>6.1} answers a delivery", n as f64 / deliveries as f64);
}

fn main() {
    let frame = Bytes::from(vec![7_u8; 4096]);
    let append = |n: u64| Op::Append {
        shard: Shard((n % 4) as u16),
        frame: frame.clone(),
        id: DedupeId(u128::from(n)),
        fence: None,
    };
    // A frame of its own for each append, as from a worker that gathers messages.
    let copied = |n: u64| match append(n) {
        Op::Append { shard, frame, id, fence } => {
            Op::Append { shard, frame: Bytes::copy_from_slice(&frame), id, fence }
        }
        other => other,
    };
    let key = |n: u64| Key::of("s", &[format!("device-{}", n * 7919 % 100_000).as_bytes()]);
    let put = |n: u64| Op::Put { writes: vec![Write::put(key(n), Bytes::from_static(b"a session record"))] };

    Bench::new().round_trips("append 4 KiB, round trip", 20_000, append);
    Bench::new().pipelined("append 4 KiB, pipelined", 1 << 20, append);
    Bench::new().pipelined("append 4 KiB made anew, pipelined", 1 << 19, copied);
    let tailed = Bench::new();
    (0..4).for_each(|shard| tailed.engine.tail(tailed.port, Shard(shard), Pos::START));
    tailed.pipelined("append 4 KiB, pipelined, tailed", 1 << 20, append);
    Bench::new().pipelined("put 100,000 keys, pipelined", 1 << 19, put);
    let watched = Bench::new();
    watched.engine.watch(watched.port, Key::from_bytes("default/"));
    watched.pipelined("put 100,000 keys, pipelined, watched", 1 << 19, put);
}
