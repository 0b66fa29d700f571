//! The broker suite: each row is one scenario of `mqload` against a broker that was started for it alone.

use std::time::Duration;

use serde_json::Value;

use super::figures::{self, Measured, Row, Table};
use super::process::{self, Launch, Quiet, Seat, Server};
use super::tools::Bench;
use super::{LATENCY_NOISE, LATENCY_SECS, LATENCY_TRIES, Wishes, in_turns};

/// A scenario and how its answer is read.
struct Scenario {
    row: Row,
    args: &'static str,
    /// The number in the answer.
    field: &'static str,
    /// Whether the null broker can do it: exact topics, QoS 0.
    null: bool,
    /// At a fixed moderate rate both sides are idle part of the time, and it is the latency that counts.
    paced: bool,
}

impl Scenario {
    const fn new(row: Row, args: &'static str, field: &'static str) -> Self {
        Self { row, args, field, null: true, paced: false }
    }

    const fn beyond_null(mut self) -> Self {
        self.null = false;
        self
    }

    const fn paced(mut self) -> Self {
        self.paced = true;
        self
    }
}

const PER_MILLION: &str = "CPU-s per million";

fn scenarios() -> Vec<Scenario> {
    let cpu = |name, what, args| Scenario::new(Row::new(name, what, PER_MILLION), args, "cpu_s_per_M");
    vec![
        cpu("1to1_q0", "1→1 QoS 0", "pubsub --window 4096"),
        cpu("10x10_q0", "10×10 QoS 0", "pubsub --pubs 10 --subs 10 --topics 10 --window 1024"),
        cpu(
            "10x10_q1",
            "10×10 QoS 1",
            "pubsub --pubs 10 --subs 10 --topics 10 --qos 1 --inflight 100 --window 1024",
        )
        .beyond_null(),
        cpu(
            "10x10_q2",
            "10×10 QoS 2",
            "pubsub --pubs 10 --subs 10 --topics 10 --qos 2 --inflight 100 --window 1024",
        )
        .beyond_null(),
        cpu("fanout100", "fan-out 100", "fanout --subs 100 --window 64"),
        cpu("fanin100", "fan-in 100", "fanin --pubs 100 --window 64"),
        cpu("wild10k", "10,000 filters", "wildcards --filters 10000 --subs 100 --pubs 4 --window 1024")
            .beyond_null(),
        Scenario::new(
            Row::new("rate20k", "p99 at 20,000/s", "µs").with_noise(LATENCY_NOISE),
            "pubsub --pubs 20 --subs 20 --topics 20 --rate 20000 --tick 200 --window 0",
            "p99_us",
        )
        .paced(),
        Scenario::new(
            Row::new("connect10k", "connect", "CPU-µs"),
            "connect --n 10000 --conc 64 --srcs 4 --hold 1",
            "cpu_us_per_conn",
        ),
        Scenario::new(
            Row::new("idle19k5", "idle connection", "bytes"),
            "idle --n 19500 --conc 64 --srcs 4 --hold 3 --setup 25",
            "rss_bytes_per_conn",
        ),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broker {
    Tidegate,
    Mosquitto,
    Nats,
    Null,
}

/// Runs the suite.
pub(super) fn measure(bench: &Bench, wishes: &Wishes) -> Table {
    let mut brokers = vec![Broker::Tidegate, Broker::Mosquitto];
    match bench.nats {
        Some(_) => brokers.push(Broker::Nats),
        None => println!("nats-server is not installed and left out"),
    }
    brokers.push(Broker::Null);
    let contestants = brokers.iter().map(|broker| match broker {
        Broker::Tidegate => figures::ours("tidegate"),
        Broker::Mosquitto => figures::rival("mosquitto"),
        Broker::Nats => figures::peer("nats-server"),
        Broker::Null => figures::peer("null server"),
    });
    let mut table = Table::new("Brokers", contestants.collect());
    let scenarios = scenarios();
    let rows: Vec<_> = scenarios.iter().map(|scenario| scenario.row.clone()).collect();
    in_turns(&mut table, &rows, wishes, |row, contestant| {
        let (scenario, broker) = (&scenarios[row], brokers[contestant]);
        let able = broker != Broker::Null || scenario.null;
        able.then(|| once(bench, wishes, scenario, broker))
    });
    table
}

fn once(bench: &Bench, wishes: &Wishes, scenario: &Scenario, broker: Broker) -> Result<Measured, String> {
    let _quiet = Quiet::wait()?;
    let port = process::free_port()?;
    let launch = broker.launch(bench, port)?.real_time(scenario.paced);
    let mut server = Server::start(&launch, &bench.folder, port)?;
    let (tries, secs) = if scenario.paced { (LATENCY_TRIES, LATENCY_SECS) } else { (1, wishes.secs) };
    let load = Launch::new(&bench.mqload, Seat::Load, scenario.args)
        .real_time(scenario.paced)
        .args(&format!("--port {port} --pid {} --secs {}", server.pid(), secs));
    let limit = Duration::from_secs_f64(secs + 90.0);
    let measured =
        figures::best_of(tries, || read(&process::ask(&load, &bench.folder, limit)?, scenario.field))?;
    server.check_alive()?;
    Ok(measured)
}

impl Broker {
    fn launch(self, bench: &Bench, port: u16) -> Result<Launch, String> {
        Ok(match self {
            Self::Tidegate => {
                let data = data_folder(bench, "tidegate-data")?;
                let config = format!(
                    "[node]\nname = \"bench\"\ndata_dir = \"{data}\"\nworkers = 1\n\n[engine]\nkind = \"memory\"\n\n\
                     [[broker.listeners]]\nbind = \"127.0.0.1:{port}\"\n\n[log]\nlevel = \"warn\"\n"
                );
                let config = bench.file("broker.toml", &config)?;
                Launch::new(&bench.tidegate, Seat::Server, "run --config").arg(config)
            }
            Self::Mosquitto => {
                // Its limits are raised above what the windows allow, so that it has no reason to lose anything: with
                // its defaults it drops most messages of the QoS 2 row.
                let config = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
                     max_queued_messages 100000\nmax_inflight_messages 0\n"
                );
                let config = bench.file("mosquitto.conf", &config)?;
                Launch::new(&bench.mosquitto, Seat::Server, "-c").arg(config)
            }
            Self::Nats => {
                let program = bench.nats.as_ref().ok_or("nats-server is not installed")?;
                let store = data_folder(bench, "nats-data")?;
                let own = process::free_port()?;
                let config = format!(
                    "server_name: bench\nlisten: \"127.0.0.1:{own}\"\njetstream {{ store_dir: \"{store}\" }}\n\
                     mqtt {{ listen: \"127.0.0.1:{port}\" }}\n"
                );
                let config = bench.file("nats.conf", &config)?;
                Launch::new(program, Seat::Server, "-c").arg(config)
            }
            Self::Null => Launch::new(
                &bench.mqload,
                Seat::Server,
                &format!("null --mode batch --port {port} --secs 120"),
            ),
        })
    }
}

/// An empty folder for a server's data.
fn data_folder(bench: &Bench, name: &str) -> Result<String, String> {
    let path = bench.folder.join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path.display().to_string())
}

fn read(answer: &Value, field: &str) -> Result<Measured, String> {
    let value = answer[field].as_f64().ok_or_else(|| format!("mqload did not tell {field}"))?;
    let count = |field: &str| answer[field].as_u64().unwrap_or(0);
    let mut faults = Vec::new();
    if count("lost") > 0 {
        faults.push(format!("{} of {} messages lost", count("lost"), count("expected")));
    }
    for (field, what) in [
        ("dups", "duplicates"),
        ("order_viol", "messages out of order"),
        ("disconnects", "connections closed"),
        ("failed", "connections failed"),
        ("sub_rejects", "subscriptions refused"),
    ] {
        if count(field) > 0 {
            faults.push(format!("{} {what}", count(field)));
        }
    }
    Ok(Measured { value, faults })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_gives_its_number_and_what_went_wrong() {
        let answer = json!({ "cpu_s_per_M": 1.5, "lost": 0, "order_viol": 0, "dups": 0 });
        assert_eq!(read(&answer, "cpu_s_per_M").unwrap(), Measured::of(1.5));
        let answer = json!({ "cpu_s_per_M": 1.5, "lost": 3, "expected": 9, "order_viol": 2 });
        let faults = read(&answer, "cpu_s_per_M").unwrap().faults;
        assert_eq!(faults, ["3 of 9 messages lost", "2 messages out of order"]);
        assert!(read(&answer, "p99_us").unwrap_err().contains("p99_us"));
    }

    #[test]
    fn the_null_broker_is_asked_only_for_what_it_can_do() {
        let names: Vec<_> = scenarios().iter().filter(|one| !one.null).map(|one| one.row.name).collect();
        assert_eq!(names, ["10x10_q1", "10x10_q2", "wild10k"]);
    }
}
