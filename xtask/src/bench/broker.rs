//! The broker suite: each scenario is one load against a broker that was started for it alone.

mod scenarios;
mod servers;

use std::cell::OnceCell;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{self, Measured, Table};
use super::process::{self, Launch, Priority, Quiet, Seat, Server};
use super::tools::Bench;
use super::{LATENCY_SECS, Suite, Wishes, in_turns};
use scenarios::{LEVELS, Load, Part, QUANTILES, SATURATING, Scenario, Whose};
use servers::{Broker, Setup};

/// Runs one of the broker's suites and gives its tables.
pub(super) fn measure(bench: &Bench, wishes: &Wishes, suite: Suite) -> String {
    let run = Run { bench, wishes, rival_rate: OnceCell::new() };
    let parts = scenarios::parts(suite, bench.nats.is_some());
    let tables = parts.iter().map(|part| run.table(part));
    tables.filter(|table| !table.rows.is_empty()).map(|table| table.markdown()).collect::<Vec<_>>().join("\n")
}

/// The tables of one of the broker's suites with all rows and no number.
pub(super) fn tables(suite: Suite) -> Vec<Table> {
    scenarios::parts(suite, true).iter().map(table_of).collect()
}

fn table_of(part: &Part) -> Table {
    let contestants = part.contestants.iter().map(|(_, contestant)| contestant.clone());
    let mut table = Table::new(part.title, contestants.collect());
    table.rows = part.scenarios.iter().flat_map(|scenario| scenario.rows.clone()).collect();
    table
}

struct Run<'a> {
    bench: &'a Bench,
    wishes: &'a Wishes,
    /// Messages per second that saturate mosquitto: measured once, so that every turn has the same rates.
    rival_rate: OnceCell<f64>,
}

impl Run<'_> {
    fn table(&self, part: &Part) -> Table {
        let mut table = table_of(part);
        let groups: Vec<_> = part.scenarios.iter().map(|scenario| scenario.rows.clone()).collect();
        in_turns(&mut table, &groups, self.wishes, |group, contestant| {
            let (scenario, broker) = (&part.scenarios[group], part.contestants[contestant].0);
            let able = broker != Broker::Null || scenario.null;
            able.then(|| self.once(scenario, broker))
        });
        table
    }

    /// One run, or for latencies some short ones, with a server of its own.
    fn once(&self, scenario: &Scenario, broker: Broker) -> Result<Vec<Measured>, String> {
        let (setup, wishes) = (scenario.setup, self.wishes);
        if let Load::Levels(line, whose) = scenario.load {
            return self.levels(line, whose, broker, setup);
        }
        let _quiet = Quiet::wait()?;
        let mut running = Running::start(self.bench, broker, setup)?;
        let (tries, secs) = match setup.priority {
            Priority::Usual => (1, wishes.secs),
            Priority::RealTime => (wishes.tries, LATENCY_SECS),
        };
        let measured = figures::best_of(tries, || {
            let answer = running.ask(scenario.load, secs)?;
            scenario.fields.iter().map(|field| read(&answer, field)).collect()
        })?;
        running.server.check_alive()?;
        Ok(measured)
    }

    /// Latencies at shares of a rate.
    fn levels(
        &self,
        line: &str,
        whose: Whose,
        broker: Broker,
        setup: Setup,
    ) -> Result<Vec<Measured>, String> {
        let rate = match (whose, self.rival_rate.get()) {
            (Whose::Own, _) => self.saturated_rate(line, broker)?,
            (Whose::Rival, Some(&rate)) => rate,
            (Whose::Rival, None) => {
                let rate = self.saturated_rate(line, Broker::Mosquitto)?;
                println!("mosquitto is saturated at {rate:.0} messages per second");
                *self.rival_rate.get_or_init(|| rate)
            }
        };
        let _quiet = Quiet::wait()?;
        let mut running = Running::start(self.bench, broker, setup)?;
        let mut all = Vec::new();
        for share in LEVELS {
            let line = format!("{line} --rate {:.0} --tick 200 --window 0", rate * share);
            all.extend(figures::best_of(self.wishes.tries, || {
                let answer = running.ask_mqload(&line, LATENCY_SECS)?;
                QUANTILES.iter().map(|field| read(&answer, field)).collect()
            })?);
        }
        running.server.check_alive()?;
        Ok(all)
    }

    /// Messages per second that a broker delivers when a load on the other core asks for all it can.
    fn saturated_rate(&self, line: &str, broker: Broker) -> Result<f64, String> {
        let _quiet = Quiet::wait()?;
        let setup = Setup { priority: Priority::Usual, ..scenarios::PINNED };
        let mut running = Running::start(self.bench, broker, setup)?;
        let answer = running.ask_mqload(&format!("{line} {SATURATING}"), LATENCY_SECS)?;
        let rate = answer["delivered_per_s"].as_f64().filter(|&rate| rate > 0.0);
        rate.ok_or_else(|| "mqload did not tell a rate".to_owned())
    }
}

/// A broker and how it is asked.
struct Running<'a> {
    bench: &'a Bench,
    server: Server,
    port: u16,
    setup: Setup,
}

impl<'a> Running<'a> {
    fn start(bench: &'a Bench, broker: Broker, setup: Setup) -> Result<Self, String> {
        let port = process::free_port()?;
        let launch = broker.launch(bench, port, setup)?;
        Ok(Self { bench, server: Server::start(&launch, &bench.folder, port)?, port, setup })
    }

    fn ask(&mut self, load: Load, secs: f64) -> Result<Value, String> {
        match load {
            Load::Mqload(line) | Load::Levels(line, _) => self.ask_mqload(line, secs),
            Load::Own(line) => {
                let own = std::env::current_exe().map_err(|error| format!("our own program: {error}"))?;
                self.instrument(Launch::new(own, self.load_seat(), &format!("load {line}")), secs)
            }
        }
    }

    fn ask_mqload(&mut self, line: &str, secs: f64) -> Result<Value, String> {
        self.instrument(Launch::new(&self.bench.mqload, self.load_seat(), line), secs)
    }

    const fn load_seat(&self) -> Seat {
        match self.setup.seat {
            Seat::Everywhere => Seat::Everywhere,
            Seat::Server | Seat::Load => Seat::Load,
        }
    }

    fn instrument(&self, launch: Launch, secs: f64) -> Result<Value, String> {
        let line = format!("--port {} --pid {} --secs {secs}", self.port, self.server.pid());
        let launch = launch.priority(self.setup.priority).args(&line);
        let limit = Duration::from_secs_f64(secs + 90.0);
        Ok(with_times(process::ask(&launch, &self.bench.folder, limit)?))
    }
}

/// Adds the time that a unit took by the clock, where the answer has a rate.
fn with_times(mut answer: Value) -> Value {
    for (rate, time, units) in
        [("delivered_per_s", "wall_s_per_M", 1e6), ("conn_per_s", "wall_us_per_conn", 1e6)]
    {
        if let Some(rate) = answer[rate].as_f64().filter(|&rate| rate > 0.0) {
            answer[time] = json!(units / rate);
        }
    }
    answer
}

fn read(answer: &Value, field: &str) -> Result<Measured, String> {
    let value = answer[field].as_f64().ok_or_else(|| format!("the load did not tell {field}"))?;
    Ok(Measured { value, faults: faults(answer) })
}

fn faults(answer: &Value) -> Vec<String> {
    let count = |field: &str| answer[field].as_u64().unwrap_or(0);
    let mut faults = Vec::new();
    if count("lost") > 0 {
        faults.push(format!("{} of {} messages lost", count("lost"), count("expected")));
    }
    for (field, what) in [
        ("dups", "duplicates"),
        ("order_viol", "messages out of order"),
        ("unacknowledged", "messages not acknowledged"),
        ("disconnects", "connections closed"),
        ("failed", "connections failed"),
        ("sub_rejects", "subscriptions refused"),
    ] {
        if count(field) > 0 {
            faults.push(format!("{} {what}", count(field)));
        }
    }
    faults
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
    fn a_rate_is_also_told_as_a_time() {
        let answer = with_times(json!({ "delivered_per_s": 500_000.0, "conn_per_s": 0 }));
        assert_eq!(answer["wall_s_per_M"], 2.0);
        assert!(answer.get("wall_us_per_conn").is_none());
    }
}
