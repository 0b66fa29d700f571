//! A load of our own for what the instruments outside cannot ask: properties, WebSocket, many filters, what is kept,
//! storms, consumers that do not read.
//!
//! `cargo xtask load SCENARIO --port N --pid N` runs it once against a broker on loopback and prints one line of JSON with
//! the field names of `mqload`. One thread, every run bounded in time. Must not know which broker it talks to.

mod crowd;
mod filters;
mod flow;
mod kept;
mod pairs;
mod storm;
mod usage;
mod wire;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crowd::Server;
use usage::Watched;
use wire::Version;

/// Before memory is read: what is freed with a delay.
const SETTLE: Duration = Duration::from_millis(300);

/// Runs a scenario and prints its answer; what went wrong is in the answer, as the instruments do it.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (scenario, rest) = arguments.split_first().ok_or("a load needs a scenario")?;
    let options = Options::parse(rest)?;
    let watched = Watched { pid: options.count("pid", 0)? as u32 };
    let answer = match scenario.as_str() {
        "pairs" => pairs::run(&options, watched),
        "filters" => filters::run(&options, watched),
        "retained" => kept::retained(&options, watched),
        "offline" => kept::offline(&options, watched),
        "unacknowledged" => kept::unacknowledged(&options, watched),
        "storm" => storm::run(&options, watched),
        other => return Err(format!("{other:?} is no load")),
    };
    println!("{}", answer.unwrap_or_else(|reason| serde_json::json!({ "error": reason })));
    Ok(())
}

/// `--name value` pairs.
#[derive(Debug, Default)]
struct Options(BTreeMap<String, String>);

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        const NAMES: [&str; 20] = [
            "port",
            "pid",
            "secs",
            "v",
            "ws",
            "pubs",
            "subs",
            "slow",
            "size",
            "qos",
            "window",
            "inflight",
            "rate",
            "share",
            "properties",
            "filters",
            "n",
            "conc",
            "will",
            "label",
        ];
        let mut options = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
            let known = name.strip_prefix("--").filter(|name| NAMES.contains(name));
            let name = known.ok_or_else(|| format!("{name:?} is no option of a load"))?;
            options.insert(name.to_owned(), value.clone());
        }
        Ok(Self(options))
    }

    fn number(&self, name: &str, default: f64) -> Result<f64, String> {
        let Some(text) = self.0.get(name) else { return Ok(default) };
        let value = text.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0);
        value.ok_or_else(|| format!("--{name} {text:?}: a number"))
    }

    fn count(&self, name: &str, default: usize) -> Result<usize, String> {
        Ok(self.number(name, default as f64)? as usize)
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.count(name, 0)? > 0)
    }
}

/// The server that `--port`, `--v` and `--ws` name.
fn server_of(options: &Options) -> Result<Server, String> {
    let port = u16::try_from(options.count("port", 0)?).map_err(|_| "--port: too large".to_owned())?;
    let version = if options.count("v", 4)? == 5 { Version::V5 } else { Version::V311 };
    Ok(Server { port, version, websocket: options.flag("ws")? })
}

fn settle() {
    thread::sleep(SETTLE); // sleep: what a server does after the last answer shows in nothing that could be awaited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_pairs_of_known_names_and_numbers() {
        let read = options("--port 1883 --ws 1 --rate 2.5").unwrap();
        assert_eq!((read.count("port", 0), read.number("rate", 0.0)), (Ok(1883), Ok(2.5)));
        assert_eq!(
            (read.flag("ws"), read.flag("share"), read.count("subs", 7)),
            (Ok(true), Ok(false), Ok(7))
        );
        assert_eq!(options("--prot 1").unwrap_err(), "\"--prot\" is no option of a load");
        assert_eq!(options("--port").unwrap_err(), "--port needs a value");
        assert!(options("--port x").unwrap().count("port", 0).is_err());
        assert!(server_of(&options("--port 65536").unwrap()).is_err());
    }
}
