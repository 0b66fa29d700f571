//! Connections that come and go at once: with DISCONNECT, or without a word and with a will that somebody waits for.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::process::now;
use super::crowd::{Crowd, Seen};
use super::usage::Watched;
use super::wire::{self, Connect, DISCONNECT};
use super::{Options, server_of};

/// Longest that a storm may take.
const LIMIT: Duration = Duration::from_secs(60);

/// `--n`, `--conc`, `--will 1`.
pub(super) fn run(options: &Options, watched: Watched) -> Result<Value, String> {
    let (count, at_once) = (options.count("n", 10_000)?, options.count("conc", 64)?.max(1));
    let will = options.flag("will")?;
    let mut crowd = Crowd::new(server_of(options)?)?;
    let version = crowd.version();
    let watcher = crowd.gather(1, |_| vec!["gone/#".to_owned()], 0)?.start;
    let hello = |number: usize| {
        let topic = format!("gone/{number}");
        let will = will.then_some(topic.as_str());
        let client_id = &format!("storm-device-{number:010}");
        Connect { client_id, version, clean: true, will, receive_maximum: u16::MAX }.bytes()
    };
    let cpu = watched.cpu_secs()?;
    let begin = now();
    let (mut begun, mut done, mut wills, mut failed) = (0, 0, 0, 0);
    while done < count || (will && wills + failed < count) {
        while begun < count && begun - done < at_once {
            crowd.dial(hello(begun))?;
            begun += 1;
        }
        crowd.turn(Duration::from_millis(20), &mut |crowd, client, seen| {
            match seen {
                Seen::Packet(wire::CONNACK, body) if client > watcher => {
                    failed += usize::from(body.get(1) != Some(&0));
                    if will {
                        crowd.hang_up(client);
                        done += 1;
                    } else {
                        crowd.send(client, &DISCONNECT);
                        crowd.expect_close(client);
                    }
                }
                Seen::Packet(first, _) if first & 0xf0 == wire::PUBLISH => wills += 1,
                Seen::Closed if client > watcher => {
                    failed += usize::from(!crowd.expects_close(client));
                    done += 1;
                }
                Seen::Closed => return Err("the watcher was sent away".to_owned()),
                Seen::Packet(..) => {}
            }
            Ok(())
        })?;
        if begin.elapsed() > LIMIT {
            break;
        }
    }
    let secs = begin.elapsed().as_secs_f64();
    let cpu = watched.cpu_secs()? - cpu;
    Ok(json!({
        "failed": failed + (count - done.min(count)), "expected": if will { count } else { 0 }, "delivered": wills,
        "lost": if will { count.saturating_sub(wills) } else { 0 },
        "cpu_us_per_cycle": cpu * 1e6 / count as f64, "cycles_per_s": count as f64 / secs,
    }))
}
