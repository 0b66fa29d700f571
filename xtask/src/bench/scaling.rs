//! docs/SCALING.md: what machines and fleets need, computed from the constants that docs/BENCHMARKS.md has.
//!
//! Arithmetic only. Every number of the document's tables comes either from a measured row, which is named, or from an
//! assumption, which stands in a table of its own. Whoever measures again gets the document again.

use super::figures::grid;
use super::tables::number;

/// Share of its CPU time that a machine is planned for: the rest is for bursts and for the loss of a machine.
const PLANNED: f64 = 0.5;
/// Bytes that the kernel holds for an idle TCP connection: its socket, inode, file, directory entry and epoll item.
const SOCKET: f64 = 3_768.0;
/// A gigabyte as machines are sold.
const GIB: f64 = (1_u64 << 30) as f64;

/// Where a constant stands in the tables.
struct Place {
    symbol: &'static str,
    meaning: &'static str,
    unit: &'static str,
    suite: &'static str,
    /// What `--row` calls it.
    row: &'static str,
    column: &'static str,
}

const fn place(
    symbol: &'static str,
    meaning: &'static str,
    unit: &'static str,
    suite: &'static str,
    row: &'static str,
) -> Place {
    Place { symbol, meaning, unit, suite, row, column: "tidegate" }
}

const fn workers(
    symbol: &'static str,
    meaning: &'static str,
    row: &'static str,
    column: &'static str,
) -> Place {
    Place { column, ..place(symbol, meaning, "µs", "workers", row) }
}

/// The measured constants, in the order of [`Constants`]. CPU-s per million are µs each.
const PLACES: [Place; 21] = [
    place("d0", "dense QoS 0: many messages in each read", "µs", "peers", "10x10_q0"),
    place("d1", "dense QoS 1", "µs", "peers", "10x10_q1"),
    place("d2", "dense QoS 2", "µs", "peers", "10x10_q2"),
    place("s0", "sparse QoS 0: each message alone", "µs", "loads", "sparse_q0"),
    place("s1", "sparse QoS 1", "µs", "loads", "sparse_q1"),
    place("m", "one of 1,000,000 filters, dense QoS 0", "µs", "kept", "filters1m"),
    place("c", "connect and DISCONNECT", "µs", "loads", "storm_disconnect"),
    place("u", "subscribe", "µs", "kept", "filters1m_subscribe"),
    place("Bc", "idle connection with a subscription", "bytes", "peers", "idle19k5"),
    place("Bs", "a further subscription", "bytes", "kept", "filters1m_bytes"),
    place("Br", "retained message of 64 B", "bytes", "kept", "retained_bytes"),
    place("Bq", "message of 64 B that waits for a device that is away", "bytes", "kept", "offline_bytes"),
    workers("w1", "dense QoS 1, one worker", "workers_q1", "one worker"),
    workers("w2", "dense QoS 1, two workers", "workers_q1", "two workers"),
    workers("v1", "sparse QoS 1, one worker", "workers_sparse", "one worker"),
    workers("v2", "sparse QoS 1, two workers", "workers_sparse", "two workers"),
    workers("f1", "10,000 filters, one worker", "workers_wild", "one worker"),
    workers("f2", "10,000 filters, two workers", "workers_wild", "two workers"),
    place("g", "a message through the gateway, alone", "µs", "gateway", "window1"),
    place("gc", "a connect through the gateway", "CPU-s per 10,000", "gateway", "storm"),
    place("Bg", "idle connection through the gateway", "KiB", "gateway", "idle"),
];

/// The values of [`PLACES`]; µs, bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Constants {
    values: [f64; PLACES.len()],
}

/// What a device of the model's fleet does; the document shows them.
struct Fleet {
    /// Messages to the broker per second, at QoS 1.
    up: f64,
    /// Messages to the device per second, at QoS 1.
    down: f64,
    /// Subscriptions of a device.
    subscriptions: f64,
    /// Retained messages of a device.
    retained: f64,
    /// Messages that wait, as an average over all devices.
    waiting: f64,
    /// Bytes of a payload.
    payload: f64,
    /// All come back within so many seconds after a disaster.
    back: f64,
}

const FLEET: Fleet = Fleet {
    up: 1.0 / 60.0,
    down: 1.0 / 600.0,
    subscriptions: 2.0,
    retained: 1.0,
    waiting: 0.5,
    payload: 256.0,
    back: 600.0,
};
/// Bytes beside the payload of a message and its acknowledgement on one leg: topic, headers of MQTT, and two packets'
/// headers of TCP, IP and Ethernet.
const OVERHEAD: f64 = 40.0 + 10.0 + 4.0 + 2.0 * 78.0;

/// The tables of the document, by mark.
pub(super) fn tables(measured: &str) -> Result<[(&'static str, String); 3], String> {
    let constants = Constants::read(measured)?;
    Ok([("constants", constants.table()), ("machines", constants.machines()), ("fleets", constants.fleets())])
}

impl Constants {
    fn read(measured: &str) -> Result<Self, String> {
        let mut values = [0.0; PLACES.len()];
        for (value, place) in values.iter_mut().zip(&PLACES) {
            let Place { suite, row, column, .. } = place;
            *value = number(measured, row, column).ok_or_else(|| {
                format!("no {column:?} of the row {row:?}: `cargo xtask bench {suite} --write`")
            })?;
        }
        Ok(Self { values })
    }

    fn of(&self, symbol: &str) -> f64 {
        PLACES.iter().position(|place| place.symbol == symbol).map_or(f64::NAN, |at| self.values[at])
    }

    /// What a message costs more that is handed to another worker, among many: half of the pairs meet one.
    fn handover(&self) -> f64 {
        self.between("w1", "w2")
    }

    /// The same for a message that is alone in its socket.
    fn sparse_handover(&self) -> f64 {
        self.between("v1", "v2")
    }

    /// From what a message costs with one worker and with two: what the crossing costs that half of them make.
    fn between(&self, one: &str, two: &str) -> f64 {
        ((self.of(two) - self.of(one)) / 0.5).max(0.0)
    }

    /// What another filter table costs than a small one: cache misses.
    fn misses(&self) -> f64 {
        (self.of("m") - self.of("d0")).max(0.0)
    }

    /// CPU-µs of a message of a fleet at QoS 1 on a broker of `cores` workers.
    fn message(&self, cores: f64) -> f64 {
        self.of("s1") + self.misses() + self.sparse_handover() * (cores - 1.0) / cores
    }

    fn table(&self) -> String {
        let measured = PLACES.iter().zip(self.values).map(|(place, value)| {
            let command = format!("{} --row {}", place.suite, place.row);
            [place.symbol, place.meaning, &value.to_string(), place.unit, &command]
                .map(str::to_owned)
                .to_vec()
        });
        let computed = [
            ("h", "hand-over to another worker, dense: (w2 − w1) / ½", self.handover()),
            ("hs", "hand-over to another worker, sparse: (v2 − v1) / ½", self.sparse_handover()),
            ("hf", "hand-over with 10,000 filters: (f2 − f1) / ½", self.between("f1", "f2")),
            ("k", "cache misses of a large table: m − d0", self.misses()),
        ]
        .map(|(symbol, meaning, value)| {
            [symbol, meaning, &format!("{value:.2}"), "µs", "computed"].map(str::to_owned).to_vec()
        });
        headed(&["", "what", "value", "unit", "cargo xtask bench ..."], measured.chain(computed))
    }

    /// What a machine's cores carry.
    fn machines(&self) -> String {
        let head = [
            "cores",
            "dense QoS 0/s",
            "dense QoS 1/s",
            "dense QoS 2/s",
            "fleet QoS 1/s",
            "connects/s",
            "gateway: messages/s",
            "gateway: connects/s",
        ];
        let machine = |cores: f64| {
            let each_second = |cost: f64| rounded(cores * PLANNED * 1e6 / cost);
            let handover = self.handover() * (cores - 1.0) / cores;
            vec![
                format!("{cores:.0}"),
                each_second(self.of("d0") + handover),
                each_second(self.of("d1") + handover),
                each_second(self.of("d2") + handover),
                each_second(self.message(cores)),
                each_second(self.of("c") + self.of("u") * FLEET.subscriptions),
                each_second(self.of("g")),
                each_second(self.of("gc") * 100.0),
            ]
        };
        headed(&head, [8.0, 32.0, 64.0].into_iter().map(machine))
    }

    /// What a fleet needs.
    fn fleets(&self) -> String {
        let head = [
            "devices",
            "messages/s",
            "broker cores: messages",
            "broker cores: all come back",
            "broker memory, GiB",
            "of it sockets",
            "gateway cores",
            "gateway memory, GiB",
            "Gbit/s",
            "machines",
        ];
        let fleet = |devices: f64| {
            let needs = self.needs(devices);
            vec![
                rounded(devices),
                rounded(needs.messages),
                figure(needs.cores),
                figure(needs.storm_cores),
                figure(needs.memory / GIB),
                figure(devices * SOCKET / GIB),
                figure(needs.gateway_cores),
                figure(needs.gateway_memory / GIB),
                figure(needs.bits / 1e9),
                needs.machines(),
            ]
        };
        headed(&head, [1e6, 1e7, 1e8].into_iter().map(fleet))
    }

    fn needs(&self, devices: f64) -> Needs {
        const CORES: f64 = 32.0;
        let messages = devices * (FLEET.up + FLEET.down);
        let coming = devices / FLEET.back;
        let connect = self.of("c") + self.of("u") * FLEET.subscriptions;
        // What the payload has more than the 64 bytes that were measured.
        let longer = FLEET.payload - 64.0;
        let own = self.of("Bc")
            + self.of("Bs") * (FLEET.subscriptions - 1.0)
            + (self.of("Br") + longer) * FLEET.retained
            + (self.of("Bq") + longer) * FLEET.waiting;
        Needs {
            messages,
            cores: messages * self.message(CORES) / 1e6 / PLANNED,
            storm_cores: coming * connect / 1e6 / PLANNED,
            memory: devices * (own + SOCKET),
            // On the device's leg a message goes one way and its acknowledgement the other.
            gateway_cores: (messages * 2.0 * self.of("g") + coming * self.of("gc") * 100.0) / 1e6 / PLANNED,
            gateway_memory: devices * (self.of("Bg") * 1_024.0 + 2.0 * SOCKET),
            bits: messages * 2.0 * (FLEET.payload + OVERHEAD) * 8.0,
        }
    }
}

/// What a fleet needs; memory in bytes, network in bits per second.
#[derive(Clone, Copy, Debug)]
struct Needs {
    messages: f64,
    cores: f64,
    storm_cores: f64,
    memory: f64,
    gateway_cores: f64,
    gateway_memory: f64,
    bits: f64,
}

impl Needs {
    /// Brokers and gateways of 32 cores and 128 GiB, of which 96 are planned, and one of each to spare.
    fn machines(&self) -> String {
        const CORES: f64 = 32.0;
        const MEMORY: f64 = 96.0 * GIB;
        let of = |cores: f64, memory: f64| (cores / CORES).max(memory / MEMORY).ceil().max(1.0) + 1.0;
        let brokers = of(self.cores + self.storm_cores, self.memory);
        let gateways = of(self.gateway_cores, self.gateway_memory);
        format!("{brokers:.0} brokers, {gateways:.0} gateways")
    }
}

/// A table of `rows` under `head`.
fn headed(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    grid(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// Two digits that count, with separators: a model has no more.
fn rounded(value: f64) -> String {
    let scale = 10_f64.powf(value.max(1.0).log10().floor() - 1.0);
    let digits = format!("{:.0}", (value / scale).round() * scale);
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn figure(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.2}"),
        1.0..10.0 => format!("{value:.1}"),
        _ => rounded(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_that_is_missing_is_named_with_the_way_to_get_it() {
        let missing = Constants::read("words\n").unwrap_err();
        assert!(missing.contains("10x10_q0") && missing.contains("bench peers --write"), "{missing}");
    }

    /// Everything costs 1 but what is named.
    fn constants(named: &[(&str, f64)]) -> Constants {
        let value = |place: &Place| {
            named.iter().find(|(symbol, _)| *symbol == place.symbol).map_or(1.0, |&(_, value)| value)
        };
        Constants { values: std::array::from_fn(|at| value(&PLACES[at])) }
    }

    #[test]
    fn what_a_message_costs_is_the_sum_of_its_parts() {
        let constants = constants(&[("s1", 4.0), ("d0", 0.5), ("m", 2.0), ("v1", 1.0), ("v2", 1.25)]);
        assert_eq!((constants.handover(), constants.sparse_handover(), constants.misses()), (0.0, 0.5, 1.5));
        assert_eq!(constants.message(1.0), 5.5);
        assert_eq!(constants.message(2.0), 5.75);
    }

    #[test]
    fn a_fleet_needs_in_proportion_to_its_devices() {
        let constants = constants(&[("s1", 5.0)]);
        let (one, ten) = (constants.needs(1e6), constants.needs(1e7));
        let all = |needs: &Needs| [needs.cores, needs.memory, needs.gateway_cores, needs.bits];
        for (one, ten) in all(&one).into_iter().zip(all(&ten)) {
            assert!((ten / one - 10.0).abs() < 1e-9, "{one} {ten}");
        }
        // 18,333 messages per second at 5 µs, planned for half of a core's time.
        assert!((one.cores - 18_333.3 * 5.0 / 1e6 * 2.0).abs() < 1e-4, "{}", one.cores);
        assert_eq!(one.machines(), "2 brokers, 2 gateways");
    }

    #[test]
    fn numbers_have_two_digits_that_count() {
        let all = [0.123, 1.26, 12.6, 1_234_567.0].map(figure);
        assert_eq!(all, ["0.12", "1.3", "13", "1,200,000"]);
        assert_eq!(rounded(1_000_000.0), "1,000,000");
    }
}
