//! Random turns of the state on simulated time, judged by a naive oracle.

mod generate;
mod oracle;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::MemoryConfig;
use super::state::State;
use crate::turn::Turns;
use crate::turn::outbox::Outbox;
use crate::{Arrival, Change, EngineError, Key, Op, Port, Pos, Reply, Rev, Shard, Token, WatchId};
use generate::{Generator, Step};
use oracle::Oracle;

type Answer = Result<Reply, EngineError>;

/// Small bounds, so that short runs meet them.
fn config() -> MemoryConfig {
    MemoryConfig {
        shards: 2,
        max_log_bytes: 1 << 20,
        max_register_bytes: 3 << 20,
        max_frame: 500_000,
        max_value: 700_000,
        dedupe_appends: 8,
        dedupe_time: Duration::from_secs(3),
        dedupe_max_ids: 20,
        ..MemoryConfig::default()
    }
}

/// A watch and what it has been given.
struct Watcher {
    port: Port,
    prefix: Key,
    /// By key: the last change given.
    given: BTreeMap<Key, Change>,
    ready: bool,
    /// Changes given after Ready.
    live: Vec<Change>,
}

/// A barrier that was asked.
struct Asked {
    port: Port,
    prefix: Key,
    rev: Rev,
    /// Watches older than the barrier.
    watches: Vec<WatchId>,
}

/// One run.
struct Simulation {
    state: State,
    out: Outbox,
    oracle: Oracle,
    tails: HashMap<(Port, Shard), u64>,
    watches: HashMap<WatchId, Watcher>,
    barriers: HashMap<Token, Asked>,
    answers: HashMap<Token, (Port, Answer)>,
}

impl Simulation {
    fn new() -> Self {
        Self {
            state: State::new(&config()),
            out: Outbox::default(),
            oracle: Oracle::new(&config()),
            tails: HashMap::new(),
            watches: HashMap::new(),
            barriers: HashMap::new(),
            answers: HashMap::new(),
        }
    }

    /// One turn: the state does the steps, then the oracle judges what came of them.
    fn turn(&mut self, now: Duration, steps: Vec<Step>) {
        self.state.begin(now, &mut self.out);
        let due = self.state.deadline();
        assert!(due.is_none_or(|at| at > now), "a lease that is due has run out");
        for step in &steps {
            match step.clone() {
                Step::Op(port, token, op) => self.state.apply(port, token, op, &mut self.out),
                Step::Tail(port, shard, after) => self.state.tail(port, shard, after),
                Step::Watch(port, id, prefix) => self.state.watch(port, id, prefix),
            }
        }
        self.state.end(&mut self.out);
        let mut lost = self.oracle.advance(now);
        let mut streams = Vec::new();
        let arrivals: Vec<_> = self.out.drain().collect();
        for (port, arrival) in
            arrivals.into_iter().flat_map(|(port, list)| list.into_iter().map(move |a| (port, a)))
        {
            match arrival {
                Arrival::Done { token, result } => {
                    let before = self.answers.insert(token, (port, result));
                    assert!(before.is_none(), "token {token} was answered twice");
                }
                Arrival::LeaseLost { key } => {
                    let at = lost.iter().position(|l| *l == (port, key.clone()));
                    lost.remove(at.unwrap_or_else(|| panic!("{key:?} was not lost by {port:?}")));
                }
                other => streams.push((port, other)),
            }
        }
        assert_eq!(lost, [], "the holder was not told");
        // Before the changes of this turn are counted as given: a barrier may not rely on them.
        self.judge_barriers();
        steps.into_iter().for_each(|step| self.judge(step));
        streams.into_iter().for_each(|(port, arrival)| self.take(port, arrival));
    }

    fn judge(&mut self, step: Step) {
        match step {
            Step::Op(port, token, Op::Barrier { prefix }) => {
                let watches = self.watches.keys().copied().collect();
                self.barriers.insert(token, Asked { port, prefix, rev: self.oracle.rev, watches });
            }
            Step::Op(port, token, op) => {
                let (to, answer) = self.answers.remove(&token).expect("it was answered in its turn");
                assert_eq!(to, port);
                self.oracle.judge(port, &op, &answer);
            }
            Step::Tail(port, shard, after) => {
                self.tails.insert((port, shard), after.seq() + 1);
            }
            Step::Watch(port, id, prefix) => {
                let given = BTreeMap::new();
                self.watches.insert(id, Watcher { port, prefix, given, ready: false, live: Vec::new() });
            }
        }
    }

    fn judge_barriers(&mut self) {
        let answered: Vec<Token> =
            self.barriers.keys().filter(|token| self.answers.contains_key(token)).copied().collect();
        for token in answered {
            let (asked, (port, answer)) = (&self.barriers[&token], &self.answers[&token]);
            assert_eq!((*port, answer), (asked.port, &Ok(Reply::Passed(asked.rev))));
            for watch in &asked.watches {
                self.assert_given(&self.watches[watch], &asked.prefix, asked.rev);
            }
            self.barriers.remove(&token);
            self.answers.remove(&token);
        }
    }

    /// Whether a watcher was given every change under both prefixes up to a revision.
    fn assert_given(&self, watcher: &Watcher, prefix: &Key, rev: Rev) {
        let both = |key: &Key| key.starts_with(prefix) && key.starts_with(&watcher.prefix);
        let mut last: BTreeMap<&Key, &Change> = BTreeMap::new();
        for change in self.oracle.history.iter().filter(|c| c.rev <= rev && both(&c.key)) {
            last.insert(&change.key, change);
        }
        for (key, change) in last {
            let given = watcher.given.get(key);
            // Gone before the snapshot came by: never heard of.
            let gone = |c: &&Change| c.key == *key && c.rev >= change.rev && c.value.is_none();
            let unheard = given.is_none() && self.oracle.history.iter().any(|c| gone(&c));
            assert!(unheard || given.is_some_and(|g| g.rev >= change.rev), "{change:?} but {given:?}");
        }
    }

    fn take(&mut self, port: Port, arrival: Arrival) {
        match arrival {
            Arrival::Frames { shard, frames } => {
                let log = &self.oracle.logs[usize::from(shard.0)];
                let next = self.tails.get_mut(&(port, shard)).expect("it has a tail");
                let bytes: usize = frames.iter().map(|f| f.bytes.len()).sum();
                assert!(
                    !frames.is_empty() && (bytes <= 1 << 20 || frames.len() == 1),
                    "a piece of {bytes} bytes"
                );
                for frame in frames {
                    assert_eq!((frame.seq, Some(&frame)), (*next, log.frame(*next).as_ref()));
                    assert!(frame.seq >= log.first, "it is gone");
                    *next += 1;
                }
            }
            Arrival::Truncated { shard, first } => {
                let next = self.tails.get_mut(&(port, shard)).expect("it has a tail");
                let left = self.oracle.logs[usize::from(shard.0)].first;
                assert_eq!(first, Pos::end_of(left - 1));
                assert!(*next < left, "nothing was missed");
                *next = left;
            }
            Arrival::Changed { watch, changes } => {
                let watcher = self.watches.get_mut(&watch).expect("it was asked");
                assert_eq!(watcher.port, port);
                let size = |c: &Change| c.key.as_bytes().len() + c.value.as_ref().map_or(0, |v| v.len());
                let bytes: usize = changes.iter().map(size).sum();
                assert!(!changes.is_empty() && (bytes <= 1 << 20 || changes.len() == 1), "{bytes} bytes");
                changes.into_iter().for_each(|change| watcher.take(change));
            }
            Arrival::WatchReady { watch } => {
                let watcher = self.watches.get_mut(&watch).expect("it was asked");
                assert!(!std::mem::replace(&mut watcher.ready, true), "ready twice");
            }
            other => panic!("{other:?}"),
        }
    }

    /// Turns without steps until nothing is left, then everything must be where it belongs.
    fn settle(mut self, now: Duration) {
        for _ in 0..1000 {
            if !self.state.has_backlog() {
                break;
            }
            self.turn(now, Vec::new());
        }
        assert!(!self.state.has_backlog(), "the backlog does not end");
        assert!(self.barriers.is_empty() && self.answers.is_empty(), "everything was answered");
        for ((_, shard), next) in &self.tails {
            let log = &self.oracle.logs[usize::from(shard.0)];
            assert!(*next > log.head(), "a tail at {next} of {}", log.head());
        }
        for watcher in self.watches.values() {
            assert!(watcher.ready);
            let has = watcher.given.values().filter_map(|c| Some((c.key.clone(), c.value.clone()?, c.rev)));
            let should = self.oracle.under(&watcher.prefix).into_iter().map(|r| (r.key, r.value, r.rev));
            assert_eq!(has.collect::<Vec<_>>(), should.collect::<Vec<_>>());
            let all: Vec<_> =
                self.oracle.history.iter().filter(|c| c.key.starts_with(&watcher.prefix)).cloned().collect();
            assert!(all.ends_with(&watcher.live), "every change after Ready, in order");
        }
        let deadline = self.oracle.leases.iter().map(|l| l.until).min();
        assert_eq!(self.state.deadline(), deadline);
    }
}

impl Watcher {
    fn take(&mut self, change: Change) {
        assert!(change.key.starts_with(&self.prefix));
        let before = self.given.get(&change.key).map(|c| c.rev);
        assert!(before < Some(change.rev), "{change:?} after {before:?}");
        if self.ready {
            self.live.push(change.clone());
        }
        self.given.insert(change.key.clone(), change);
    }
}

/// One run from a seed.
fn run(seed: u64, turns: usize) {
    let mut generator = Generator::new(seed);
    let mut simulation = Simulation::new();
    let mut now = Duration::ZERO;
    for _ in 0..turns {
        now += generator.pause();
        let steps = generator.steps(&simulation.oracle);
        simulation.turn(now, steps);
    }
    simulation.settle(now);
}

/// Says which run failed, whatever the assertion.
struct Case(u64, usize);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with TIDEGATE_SEED={} ({} turns)", self.0, self.1);
        }
    }
}

#[test]
fn sim_random_turns_are_what_the_naive_oracle_says() {
    const RUNS: u64 = 2000;
    let seed = crate::contract::seed();
    for n in 0..RUNS {
        // Short ones first: the first failure is then about as small as it gets.
        let turns = 2 + usize::try_from(n / 20).expect("small");
        let case = Case(seed.wrapping_add(n), turns);
        run(case.0, case.1);
    }
}
