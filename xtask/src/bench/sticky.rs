//! The stickiness suite: the same ids from changing addresses, then a server less, then the server again.
//!
//! Stated numbers, no ratios: either a device stays where it is, or it does not.

use std::time::Duration;

use serde_json::Value;

use super::figures::{self, Verdict};
use super::gateway::{self, Backend, SERVERS};
use super::process::{self, Launch, Quiet, Seat, Server};
use super::tools::Bench;

const IDS: usize = 1_200;

/// Runs the suite for both hashes and gives its table.
pub(super) fn measure(bench: &Bench) -> Result<String, String> {
    let mut verdicts = Vec::new();
    for hash in ["rendezvous", "ketama"] {
        let (answer, removed) = once(bench, hash)?;
        println!("{hash}: {answer}");
        verdicts.extend(judge(hash, &answer, &removed));
    }
    Ok(figures::verdicts_markdown("Stickiness", &verdicts))
}

/// The instrument's answer, and the port of the server that was taken out.
fn once(bench: &Bench, hash: &str) -> Result<(Value, String), String> {
    let _quiet = Quiet::wait()?;
    let backend = Backend::start(bench, false, false)?;
    let (port, api) = (process::free_port()?, process::free_port()?);
    let mut config = gateway::tidegate_config(bench, port, &backend.ports, hash, false);
    config += &format!("\n[admin]\nbind = \"127.0.0.1:{api}\"\n");
    let config = bench.file("sticky.toml", &config)?;
    let launch = Launch::new(&bench.tidegate, Seat::Server, "run --config").arg(config);
    let mut server = Server::start(&launch, &bench.folder, port)?;
    let removed = backend.ports[1].to_string();
    let steer = |verb: &str| {
        let program = bench.tidegate.display();
        format!("'{program}' ctl --api http://127.0.0.1:{api} upstreams {verb} brokers 127.0.0.1:{removed}")
    };
    let line = format!("sticky --to 127.0.0.1:{port} --ids {IDS} --rounds 3 --srcs 16 --settle-ms 300");
    let ask = Launch::new(&bench.lbbench, Seat::Load, &line)
        .arg("--remove")
        .arg(steer("drain"))
        .arg("--add")
        .arg(steer("enable"));
    let answer = process::ask(&ask, &bench.folder, Duration::from_secs(120))?;
    server.check_alive()?;
    Ok((answer, removed))
}

/// Most that the fullest server may have over the mean, if chance alone decides: four standard deviations.
fn evenness() -> f64 {
    1.0 + 4.0 * (SERVERS as f64 / IDS as f64).sqrt()
}

fn judge(hash: &str, answer: &Value, removed: &str) -> Vec<Verdict> {
    let number = |field: &str| answer[field].as_f64().unwrap_or(f64::NAN);
    let share = answer["dist"][removed].as_f64().unwrap_or(f64::NAN) / IDS as f64;
    let failed: f64 = ["failed", "failed_after_remove", "failed_after_add"].map(number).iter().sum();
    let commands = ["remove_cmd_ok", "add_cmd_ok"].iter().all(|field| answer[field] == true);
    let verdict = |what: &str, expected: &str, seen: f64, well: bool| Verdict {
        what: format!("{hash}: {what}"),
        expected: expected.to_owned(),
        seen: figures::short(seen),
        well,
    };
    // The instrument rounds to four digits.
    let exact = |what: &str, expected: &str, field: &str, value: f64| {
        verdict(what, expected, number(field), (number(field) - value).abs() < 0.000_1)
    };
    let uneven = number("max_over_mean");
    let share_text = format!("its share, {share:.4}");
    vec![
        exact("ids that always reach one server", "1", "ids_on_one_backend", 1.0),
        verdict("connections that failed", "0", failed, failed == 0.0 && commands),
        exact("servers in use", &SERVERS.to_string(), "backends_seen", SERVERS as f64),
        verdict(
            "fullest server over the mean",
            &format!("≤ {:.4}", evenness()),
            uneven,
            uneven <= evenness(),
        ),
        exact("moved when a server is drained", &share_text, "moved_on_remove", share),
        exact("moved when it is back", &share_text, "moved_on_add", share),
        exact("ids where they were at first", "1", "same_as_first_map", 1.0),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "ids_on_one_backend": 1.0, "failed": 0, "backends_seen": 4, "max_over_mean": 1.1,
            "dist": { "1": 300, "2": 290, "3": 330, "4": 280 },
            "remove_cmd_ok": true, "moved_on_remove": 0.2417, "failed_after_remove": 0,
            "add_cmd_ok": true, "moved_on_add": 0.2417, "same_as_first_map": 1.0, "failed_after_add": 0,
        })
    }

    #[track_caller]
    fn check_lost(field: &str, value: Value, lost: usize) {
        let mut answer = answer();
        answer[field] = value;
        let verdicts = judge("h", &answer, "2");
        assert_eq!(verdicts.iter().filter(|verdict| !verdict.well).count(), lost, "{field}");
    }

    #[test]
    fn a_gateway_that_keeps_every_device_has_all_verdicts() {
        check_lost("failed", json!(0), 0);
    }

    #[test]
    fn every_wrong_number_is_seen() {
        check_lost("ids_on_one_backend", json!(0.999_2), 1);
        check_lost("failed", json!(1), 1);
        check_lost("add_cmd_ok", json!(false), 1);
        check_lost("backends_seen", json!(3), 1);
        check_lost("max_over_mean", json!(1.232), 1);
        check_lost("moved_on_remove", json!(0.25), 1);
        check_lost("moved_on_add", json!(0.0), 1);
        check_lost("same_as_first_map", json!(0.99), 1);
        check_lost("dist", json!({}), 2);
    }
}
