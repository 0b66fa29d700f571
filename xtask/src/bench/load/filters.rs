//! Many distinct filters: what one costs to subscribe and to keep, and what a message costs that finds one of them.

use serde_json::{Value, json};

use super::crowd::Crowd;
use super::flow::{self, Plan, Topics, many_filter};
use super::usage::Watched;
use super::wire::Form;
use super::{Options, server_of, settle};

/// `--filters`, `--subs`, `--pubs`, `--window`.
pub(super) fn run(options: &Options, watched: Watched) -> Result<Value, String> {
    let server = server_of(options)?;
    let (count, subs) = (options.count("filters", 1_000_000)?, options.count("subs", 500)?);
    if subs == 0 || count < subs {
        return Err("every subscriber needs a filter".to_owned());
    }
    let plan = Plan {
        form: Form { version: server.version, qos: 0, retain: false, size: 64, properties: Vec::new() },
        topics: Topics::Many(count),
        copies: 1,
        ordered: false,
        window: options.count("window", 1_024)? as i64,
        inflight: 0,
        rate: None,
        secs: options.number("secs", 2.0)?,
    };
    let mut crowd = Crowd::new(server)?;
    // Connections that are there before must not count for the filters.
    let publishers = crowd.gather(options.count("pubs", 4)?, |_| Vec::new(), 0)?;
    let receivers = crowd.gather(subs, |_| Vec::new(), 0)?;
    settle();
    let (memory, cpu) = (watched.memory()?, watched.cpu_secs()?);
    crowd.subscribe(receivers.clone(), |place| (place..count).step_by(subs).map(many_filter).collect(), 0)?;
    let cpu = watched.cpu_secs()? - cpu;
    settle();
    let growth = watched.memory()?.saturating_sub(memory);
    let mut answer = flow::run(&mut crowd, &plan, publishers, receivers, watched)?;
    answer["subscribe_us"] = json!(cpu * 1e6 / count as f64);
    answer["bytes_per_subscription"] = json!(growth as f64 / count as f64);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_belongs_to_one_subscriber() {
        let all: Vec<String> = (0..7).flat_map(|place| (place..100).step_by(7).map(many_filter)).collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (100, 100));
    }
}
