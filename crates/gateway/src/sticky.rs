//! Pins: devices that are kept on a server whatever the balancing says.
//!
//! An *operator's* pin is an order and stays until it is taken back. A *recorded* pin remembers where a device was
//! put (see [`Record`]) and makes room when the table is full. Pure: no clock, no sockets. Must not know whether a
//! server can be used now: [`route`](crate::route) asks and decides.
//!
//! Bounds: `max` pins, and keys of [`MAX_RECORDED_KEY`] bytes: a device with a longer one is not recorded. Rule at the bound: a recorded pin takes the place of the recorded pin that went unused for
//! the longest time, and so does an operator's; where there are operator's pins only, a new one is refused.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Longest key that is recorded, in bytes: devices choose their keys, and a table of long ones would be large.
pub const MAX_RECORDED_KEY: usize = 256;

/// When the gateway remembers by itself where a device was put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// Never: only operators pin. The hash alone decides, and every gateway answers alike.
    #[default]
    Operator,
    /// When the server that was meant could not be reached: the device stays with its replacement, instead of
    /// going back and forth with every blink of the first.
    Failover,
    /// Always: a device stays where it once was, even when servers are added. Forgotten with the process.
    All,
}

impl Record {
    /// As written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Failover => "failover",
            Self::All => "all",
        }
    }
}

/// Who made a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An operator, through the API.
    Operator,
    /// The gateway, by its [`Record`] rule.
    Recorded,
}

impl Origin {
    /// As the API says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Recorded => "recorded",
        }
    }
}

/// The table is full of operators' pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of pins is full")]
pub struct PinsFull;

#[derive(Clone, Debug)]
struct Pin {
    server: Arc<str>,
    /// For a recorded pin its place in `by_use`; an operator's pin has none.
    used: Option<u64>,
}

/// The pins of an upstream: balancing key to server name.
#[derive(Clone, Debug)]
pub struct Pins {
    by_key: BTreeMap<Arc<str>, Pin>,
    /// Recorded pins, the longest unused first. Holds exactly those whose `used` is set.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
    max: usize,
}

impl Pins {
    /// An empty table for at most `max` pins.
    pub const fn new(max: usize) -> Self {
        Self { by_key: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0, max }
    }

    /// How many pins there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The server that a device is pinned to, for a connection of it: counts as a use.
    pub fn get(&mut self, key: &str) -> Option<Arc<str>> {
        let pin = self.by_key.get_mut(key)?;
        if let Some(used) = &mut pin.used
            && let Some(key) = self.by_use.remove(used)
        {
            self.uses += 1;
            *used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(Arc::clone(&pin.server))
    }

    /// An operator's order; replaces what was there.
    ///
    /// # Errors
    /// [`PinsFull`] when `max` operators' pins are there and this key has none.
    pub fn pin(&mut self, key: &str, server: &Arc<str>) -> Result<(), PinsFull> {
        if !self.make_room(key) {
            return Err(PinsFull);
        }
        self.remove(key);
        self.by_key.insert(Arc::from(key), Pin { server: Arc::clone(server), used: None });
        Ok(())
    }

    /// Remembers where a device was put. Never touches an operator's pin; does nothing when there is no room, or
    /// the key is longer than [`MAX_RECORDED_KEY`].
    pub fn record(&mut self, key: &str, server: &Arc<str>) {
        if key.len() > MAX_RECORDED_KEY {
            return;
        }
        if self.by_key.get(key).is_some_and(|pin| pin.used.is_none()) || !self.make_room(key) {
            return;
        }
        self.remove(key);
        self.uses += 1;
        let key: Arc<str> = Arc::from(key);
        self.by_use.insert(self.uses, Arc::clone(&key));
        self.by_key.insert(key, Pin { server: Arc::clone(server), used: Some(self.uses) });
    }

    /// Forgets a pin; `false`: there was none.
    pub fn remove(&mut self, key: &str) -> bool {
        let Some(pin) = self.by_key.remove(key) else {
            return false;
        };
        if let Some(used) = pin.used {
            self.by_use.remove(&used);
        }
        true
    }

    /// After a reload: another bound (what is above it goes, recorded pins first, then by descending key), and
    /// only servers that are there.
    pub fn reconfigure(&mut self, max: usize, known: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self
            .by_key
            .iter()
            .filter(|(_, pin)| !known(&pin.server))
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in gone {
            self.remove(&key);
        }
        self.max = max;
        while self.len() > self.max {
            if !self.evict() {
                self.by_key.pop_last();
            }
        }
    }

    /// Up to `limit` pins with keys after `after`, ascending.
    pub fn page(&self, after: Option<&str>, limit: usize) -> Vec<(Arc<str>, Arc<str>, Origin)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let row = |(key, pin): (&Arc<str>, &Pin)| {
            let origin = if pin.used.is_some() { Origin::Recorded } else { Origin::Operator };
            (Arc::clone(key), Arc::clone(&pin.server), origin)
        };
        self.by_key.range::<str, _>((start, Bound::Unbounded)).take(limit).map(row).collect()
    }

    /// Whether there is room for a pin of this key, by eviction if need be.
    fn make_room(&mut self, key: &str) -> bool {
        self.len() < self.max || self.by_key.contains_key(key) || self.evict()
    }

    /// Drops the recorded pin that went unused for the longest time; `false`: there is none.
    fn evict(&mut self) -> bool {
        self.by_use.pop_first().is_some_and(|(_, key)| self.by_key.remove(&key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn an_operators_pin_wins_over_what_was_recorded_and_stays() {
        let mut pins = Pins::new(8);
        pins.record("car", &server("a"));
        pins.pin("car", &server("b")).unwrap();
        pins.record("car", &server("c"));
        assert_eq!(pins.get("car").as_deref(), Some("b"));
        assert_eq!(pins.page(None, 9), [(server("car"), server("b"), Origin::Operator)]);
        assert!(pins.remove("car"));
        assert!(!pins.remove("car"));
        assert_eq!(pins.get("car"), None);
    }

    #[test]
    fn at_the_bound_the_longest_unused_recorded_pin_goes() {
        let mut pins = Pins::new(2);
        pins.record("a", &server("s"));
        pins.record("b", &server("s"));
        assert!(pins.get("a").is_some());
        pins.record("c", &server("s"));
        assert!(pins.get("b").is_none() && pins.get("a").is_some() && pins.get("c").is_some());
    }

    #[test]
    fn at_the_bound_operators_push_out_recorded_pins_but_not_each_other() {
        let mut pins = Pins::new(2);
        pins.record("a", &server("s"));
        pins.pin("b", &server("s")).unwrap();
        pins.pin("c", &server("s")).unwrap();
        assert_eq!(pins.pin("d", &server("s")), Err(PinsFull));
        pins.record("e", &server("s"));
        assert!(pins.get("a").is_none() && pins.get("e").is_none());
        pins.pin("b", &server("t")).unwrap();
        assert_eq!(pins.get("b").as_deref(), Some("t"));
    }

    #[test]
    fn a_key_that_is_too_long_is_not_recorded() {
        let mut pins = Pins::new(2);
        pins.record(&"x".repeat(MAX_RECORDED_KEY), &server("s"));
        pins.record(&"y".repeat(MAX_RECORDED_KEY + 1), &server("s"));
        assert_eq!(pins.len(), 1);
    }

    #[test]
    fn a_reload_forgets_servers_that_are_gone_and_what_is_above_the_bound() {
        let mut pins = Pins::new(8);
        pins.pin("a", &server("kept")).unwrap();
        pins.pin("b", &server("gone")).unwrap();
        pins.record("c", &server("kept"));
        pins.pin("d", &server("kept")).unwrap();
        pins.reconfigure(2, |name| name == "kept");
        let keys: Vec<_> = pins.page(None, 9).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, [server("a"), server("d")]);
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let mut pins = Pins::new(100);
        for n in 0..25 {
            pins.record(&format!("{n:02}"), &server("s"));
        }
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = pins.page(after.as_deref(), 10);
            let Some((last, ..)) = page.last() else { break };
            after = Some(last.to_string());
            seen.extend(page.into_iter().map(|(key, ..)| key.to_string()));
        }
        assert_eq!(seen, (0..25).map(|n| format!("{n:02}")).collect::<Vec<_>>());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Pin(u8),
        Record(u8),
        Get(u8),
        Remove(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        (0_u8..12, 0_u8..4).prop_map(|(key, what)| match what {
            0 => Op::Pin(key),
            1 => Op::Record(key),
            2 => Op::Get(key),
            _ => Op::Remove(key),
        })
    }

    proptest! {
        /// The oracle keeps a list in order of use and looks through it.
        #[test]
        fn the_table_is_a_list_with_a_bound(ops in prop::collection::vec(op(), 0..80), max in 1_usize..6) {
            let mut pins = Pins::new(max);
            let mut oracle: Vec<(u8, bool)> = Vec::new(); // (key, operator), longest unused first
            for op in ops {
                match op {
                    Op::Pin(key) | Op::Record(key) => {
                        let operator = matches!(op, Op::Pin(_));
                        if operator {
                            let _ = pins.pin(&key.to_string(), &server("s"));
                        } else {
                            pins.record(&key.to_string(), &server("s"));
                        }
                        if !operator && oracle.contains(&(key, true)) {
                            continue;
                        }
                        let mut next: Vec<_> = oracle.iter().copied().filter(|(known, _)| *known != key).collect();
                        if next.len() == max {
                            match next.iter().position(|(_, operator)| !operator) {
                                Some(oldest) => drop(next.remove(oldest)),
                                None => continue,
                            }
                        }
                        next.push((key, operator));
                        oracle = next;
                    }
                    Op::Get(key) => {
                        let found = oracle.iter().position(|(known, _)| *known == key);
                        prop_assert_eq!(pins.get(&key.to_string()).is_some(), found.is_some());
                        if let Some(at) = found {
                            let entry = oracle.remove(at);
                            oracle.push(entry);
                        }
                    }
                    Op::Remove(key) => {
                        let before = oracle.len();
                        oracle.retain(|(known, _)| *known != key);
                        prop_assert_eq!(pins.remove(&key.to_string()), oracle.len() < before);
                    }
                }
                prop_assert_eq!(pins.len(), oracle.len());
                prop_assert_eq!(pins.by_use.len(), oracle.iter().filter(|(_, operator)| !operator).count());
            }
        }
    }
}
