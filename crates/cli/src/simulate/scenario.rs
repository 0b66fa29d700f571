//! The scenario file: a fleet in TOML, judged whole. Every problem is told with its line.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use mqtt::{QoS, Version};
use runtime::config::{Document, Table};

use super::drive::{Place, Roads};
use super::fate::{Loss, Network};
use super::template::Template;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Vehicles of a group at most.
const MOST_VEHICLES: i64 = 1_000_000;

/// A fleet and its server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scenario {
    /// `host:port`.
    pub(super) server: String,
    pub(super) duration: Duration,
    /// Everything that is left to chance comes from it.
    pub(super) seed: Option<u64>,
    /// Addresses that vehicles come from; empty: the system's choice, on loopback all of 127.0.0.0/8.
    pub(super) source_addresses: Vec<IpAddr>,
    pub(super) groups: Vec<Group>,
}

/// Vehicles of a kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) count: u32,
    pub(super) client_id: Template,
    pub(super) username: Option<Template>,
    pub(super) password: Option<String>,
    pub(super) version: Version,
    /// Seconds.
    pub(super) keep_alive: u16,
    pub(super) clean_start: bool,
    pub(super) session_expiry: Duration,
    /// Vehicles that set out per second.
    pub(super) connect_rate: f64,
    pub(super) will: Option<Publication>,
    pub(super) roads: Roads,
    pub(super) network: Network,
    pub(super) telemetry: Vec<Telemetry>,
    pub(super) commands: Option<Commands>,
}

/// What is published, where and how.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Publication {
    pub(super) topic: Template,
    pub(super) payload: Template,
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

/// What a vehicle tells again and again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Telemetry {
    pub(super) publication: Publication,
    pub(super) interval: Duration,
    /// Each pause is longer or shorter by at most this.
    pub(super) jitter: Duration,
}

/// What the fleet's owner asks of each vehicle, and where the answers go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Commands {
    pub(super) topic: Template,
    pub(super) answer: Template,
    pub(super) names: Vec<String>,
    pub(super) qos: QoS,
    /// Between two commands to the same vehicle.
    pub(super) interval: Duration,
}

impl Group {
    /// Whether the broker keeps the session while a vehicle is away.
    pub(super) fn is_persistent(&self) -> bool {
        match self.version {
            Version::V5 => !self.session_expiry.is_zero(),
            Version::V31 | Version::V311 => !self.clean_start,
        }
    }
}

/// Reads a scenario. `file` is for problems and for paths in it.
///
/// # Errors
/// Every problem, one a line.
pub(super) fn parse(file: &Path, text: &str) -> Result<Scenario, String> {
    let document = Document::parse(file, text).map_err(|problems| problems.to_string())?;
    // Where there is no problem every required value was there.
    let scenario = document.read(scenario).map_err(|problems| problems.to_string())?;
    scenario.ok_or_else(|| format!("{}: a scenario without a problem and without a value", file.display()))
}

fn scenario(root: &mut Table<'_>) -> Option<Scenario> {
    let server = root.string("server").unwrap_or_else(|| "localhost:1883".to_owned());
    if server.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        root.problem("server", "host:port, such as \"127.0.0.1:1883\"");
    }
    let duration = root.duration("duration", SECOND..=DAY).unwrap_or(Duration::from_secs(60));
    let seed = root.integer("seed", 0..=i64::MAX).and_then(|seed| u64::try_from(seed).ok());
    let source_addresses = root.ip_list("source_addresses").unwrap_or_default();
    root.require("groups", "at least one [[groups]]");
    let mut names: Vec<String> = Vec::new();
    let groups = root.tables("groups", |table, index| {
        let name = table.string("name").unwrap_or_else(|| format!("group{}", index + 1));
        if names.contains(&name) {
            table.problem("name", "a name that no other group has");
        }
        names.push(name.clone());
        group(table, name)
    });
    let groups: Option<Vec<Group>> = groups.into_iter().collect();
    Some(Scenario { server, duration, seed, source_addresses, groups: groups? })
}

fn group(table: &mut Table<'_>, name: String) -> Option<Group> {
    let count = table.integer("count", 1..=MOST_VEHICLES).unwrap_or(1);
    let count = u32::try_from(count).unwrap_or(1);
    let client_id = template(table, "client_id").unwrap_or_else(|| built_in("${group}-${n}"));
    if count > 1 && !client_id.tells_vehicles_apart() || !client_id.is_fixed() {
        table.problem("client_id", "a text with ${n}, and besides with ${group} only");
    }
    let username = template(table, "username");
    let password = table.secret("password");
    let versions = [("5", Version::V5), ("3.1.1", Version::V311), ("3.1", Version::V31)];
    let version = table.choice("version", &versions).unwrap_or(Version::V5);
    if password.is_some() && username.is_none() && !version.is_v5() {
        table.problem("username", "a user name beside the password, before MQTT 5 [v3 MQTT-3.1.2-22]");
    }
    let keep_alive = table.duration("keep_alive", Duration::ZERO..=Duration::from_secs(65_535));
    let keep_alive = keep_alive.map_or(60, |time| u16::try_from(time.as_secs()).unwrap_or(u16::MAX));
    let clean_start = table.bool("clean_start").unwrap_or(false);
    let expiry = table.duration("session_expiry", Duration::ZERO..=DAY * 365);
    if expiry.is_some() && !version.is_v5() {
        table.problem("session_expiry", "nothing before version 5: there clean_start decides");
    }
    let session_expiry = expiry.unwrap_or(if clean_start { Duration::ZERO } else { HOUR });
    let connect_rate = table.rate("connect_rate").unwrap_or(100.0);
    let will = table.table("will", |table| publication(table, "offline")).flatten();
    let roads = table.table("drive", roads).flatten().unwrap_or_else(built_in_roads);
    let network = table.table("network", network).unwrap_or_else(quiet_network);
    let telemetry = table.tables("telemetry", |table, _| telemetry(table));
    let telemetry: Option<Vec<Telemetry>> = telemetry.into_iter().collect();
    // `Some(None)`: there is a section with a problem.
    let commands = match table.table("commands", commands) {
        Some(commands) => Some(commands?),
        None => None,
    };
    Some(Group {
        name,
        count,
        client_id,
        username,
        password,
        version,
        keep_alive,
        clean_start,
        session_expiry,
        connect_rate,
        will,
        roads,
        network,
        telemetry: telemetry?,
        commands,
    })
}

fn publication(table: &mut Table<'_>, payload: &str) -> Option<Publication> {
    let topic = topic(table, "topic");
    let payload = template(table, "payload").unwrap_or_else(|| built_in(payload));
    let qos = qos(table);
    let retain = table.bool("retain").unwrap_or(false);
    Some(Publication { topic: topic?, payload, qos, retain })
}

fn telemetry(table: &mut Table<'_>) -> Option<Telemetry> {
    let usual = "{\"vehicle\":\"${client_id}\",\"at\":\"${time}\",\"latitude\":${lat},\"longitude\":${lon},\
                 \"heading_degrees\":${heading},\"speed_kmh\":${speed}}";
    let publication = publication(table, usual);
    let interval = table.duration("interval", Duration::from_millis(10)..=DAY).unwrap_or(SECOND);
    let jitter = table.duration("jitter", Duration::ZERO..=DAY).unwrap_or(Duration::ZERO);
    if jitter > interval {
        table.problem("jitter", "at most the interval");
    }
    Some(Telemetry { publication: publication?, interval, jitter })
}

fn commands(table: &mut Table<'_>) -> Option<Commands> {
    let topic = topic(table, "topic");
    if topic.as_ref().is_some_and(|topic| !topic.tells_vehicles_apart()) {
        table.problem("topic", "a topic with ${n} or ${client_id}, so that each vehicle has its own");
    }
    let answer = self::topic(table, "answer");
    let level = |answer: &Template| answer.tells_vehicles_apart() && answer.filter("group").is_some();
    if answer.as_ref().is_some_and(|answer| !level(answer)) {
        table.problem("answer", "a topic with ${n} or ${client_id} as a level of its own");
    }
    let names = table.strings("names").filter(|names| !names.is_empty());
    let names = names.unwrap_or_else(|| vec!["report".to_owned()]);
    let qos = qos(table);
    let interval =
        table.duration("interval", Duration::from_millis(10)..=DAY).unwrap_or(Duration::from_secs(10));
    Some(Commands { topic: topic?, answer: answer?, names, qos, interval })
}

fn network(table: &mut Table<'_>) -> Network {
    let mean_time = table.duration("mean_time_between_losses", Duration::from_millis(100)..=DAY);
    let shortest = table.duration("outage_min", Duration::ZERO..=HOUR).unwrap_or(SECOND);
    let longest =
        table.duration("outage_max", Duration::ZERO..=HOUR).unwrap_or_else(|| shortest.max(SECOND * 10));
    if shortest > longest {
        table.problem("outage_min", "at most outage_max");
    }
    let kinds = [("silent", Loss::Silent), ("reset", Loss::Reset), ("disconnect", Loss::Disconnect)];
    let mut losses = Vec::new();
    for (index, written) in table.strings("losses").unwrap_or_default().iter().enumerate() {
        match kinds.iter().find(|(name, _)| name == written) {
            Some((_, loss)) => losses.push(*loss),
            None => table.element_problem("losses", index, "one of \"silent\", \"reset\", \"disconnect\""),
        }
    }
    if losses.is_empty() {
        losses = vec![Loss::Silent, Loss::Reset];
    }
    let roam = table.bool("roam").unwrap_or(true);
    Network { mean_time, outage: (shortest, longest), losses, roam }
}

fn quiet_network() -> Network {
    Network { mean_time: None, outage: (SECOND, SECOND), losses: vec![Loss::Silent], roam: true }
}

fn roads(table: &mut Table<'_>) -> Option<Roads> {
    let slowest = table.number("speed_min", 0.0..=1_000.0).unwrap_or(20.0);
    let fastest = table.number("speed_max", 0.0..=1_000.0).unwrap_or(120.0);
    if slowest > fastest {
        table.problem("speed_min", "at most speed_max");
    }
    let route = table.tables("route", |table, _| {
        table.require("latitude", "degrees north, such as 48.137");
        table.require("longitude", "degrees east, such as 11.575");
        let latitude = table.number("latitude", -85.0..=85.0);
        let longitude = table.number("longitude", -180.0..=180.0);
        Some(Place { latitude: latitude?, longitude: longitude? })
    });
    let mut route: Vec<Place> = route.into_iter().collect::<Option<_>>()?;
    if route.is_empty() {
        route = built_in_roads().route;
    }
    Some(Roads { route, kmh: (slowest, fastest) })
}

fn built_in_roads() -> Roads {
    Roads { route: vec![Place { latitude: 48.137, longitude: 11.575 }], kmh: (20.0, 120.0) }
}

fn qos(table: &mut Table<'_>) -> QoS {
    let qos = table.integer("qos", 0..=2).and_then(|qos| u8::try_from(qos).ok());
    qos.and_then(QoS::from_u8).unwrap_or(QoS::AtLeastOnce)
}

/// A required topic.
fn topic(table: &mut Table<'_>, key: &str) -> Option<Template> {
    table.require(key, "a topic, such as \"fleet/${client_id}/telemetry\"");
    let written = table.string(key)?;
    if let Err(error) = mqtt::topic::validate(&written) {
        table.problem(key, error.to_string());
        return None;
    }
    template(table, key)
}

fn template(table: &mut Table<'_>, key: &str) -> Option<Template> {
    let written = table.string(key)?;
    match Template::parse(&written) {
        Ok(template) => Some(template),
        Err(error) => {
            table.problem(key, error);
            None
        }
    }
}

/// A template of ours, which is right.
fn built_in(text: &str) -> Template {
    Template::parse(text).unwrap_or_else(|error| unreachable!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/fleet.toml"));

    fn problems(text: &str) -> String {
        parse(Path::new("fleet.toml"), text).expect_err("problems")
    }

    #[test]
    fn the_documented_scenario_is_valid_and_shows_every_key() {
        let scenario = parse(Path::new("docs/fleet.toml"), FLEET).unwrap();
        assert_eq!(scenario.groups.len(), 2);
        let keys = [
            "server",
            "duration",
            "seed",
            "source_addresses",
            "name",
            "count",
            "client_id",
            "username",
            "password",
            "version",
            "keep_alive",
            "clean_start",
            "session_expiry",
            "connect_rate",
            "topic",
            "payload",
            "qos",
            "retain",
            "interval",
            "jitter",
            "answer",
            "names",
            "mean_time_between_losses",
            "outage_min",
            "outage_max",
            "losses",
            "roam",
            "speed_min",
            "speed_max",
            "route",
            "latitude",
            "longitude",
        ];
        for key in keys {
            let shown = FLEET.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("{key} ="))
                    || line.contains(&format!("{{ {key} ="))
                    || line.contains(&format!(", {key} ="))
            });
            assert!(shown, "docs/fleet.toml does not show {key}");
        }
    }

    #[test]
    fn the_shortest_scenario_has_defaults() {
        let scenario = parse(Path::new("fleet.toml"), "[[groups]]\n").unwrap();
        let group = &scenario.groups[0];
        assert_eq!(
            (scenario.server.as_str(), group.count, group.version),
            ("localhost:1883", 1, Version::V5)
        );
        assert!(group.is_persistent() && group.telemetry.is_empty() && group.commands.is_none());
    }

    #[test]
    fn all_problems_are_told_with_their_lines() {
        let text = "server = \"nowhere\"\n\
                    [[groups]]\n\
                    name = \"cars\"\n\
                    count = 3\n\
                    client_id = \"car\"\n\
                    version = \"4\"\n\
                    session_expiry = \"1 hour\"\n\
                    [[groups.telemetry]]\n\
                    topic = \"a/#\"\n\
                    payload = \"${velocity}\"\n\
                    interval = \"1s\"\n\
                    jitter = \"2s\"\n\
                    [groups.network]\n\
                    losses = [\"silent\", \"loud\"]\n\
                    outage_min = \"9s\"\n\
                    outage_max = \"3s\"\n\
                    [groups.commands]\n\
                    topic = \"fleet/all\"\n\
                    [[groups]]\n\
                    name = \"cars\"\n\
                    colour = \"red\"\n";
        let told = problems(text);
        for expected in [
            "fleet.toml:1: server:",
            "fleet.toml:5: groups[0].client_id: \"car\"",
            "fleet.toml:6: groups[0].version: \"4\"",
            "fleet.toml:7: groups[0].session_expiry:",
            "fleet.toml:9: groups[0].telemetry[0].topic:",
            "fleet.toml:10: groups[0].telemetry[0].payload:",
            "fleet.toml:12: groups[0].telemetry[0].jitter:",
            "fleet.toml:14: groups[0].network.losses[1]: \"loud\"",
            "fleet.toml:15: groups[0].network.outage_min:",
            "fleet.toml:17: groups[0].commands.answer: (missing)",
            "fleet.toml:18: groups[0].commands.topic:",
            "fleet.toml:20: groups[1].name: \"cars\"",
            "fleet.toml:21: groups[1].colour:",
        ] {
            assert!(told.contains(expected), "{expected} is not in:\n{told}");
        }
        assert_eq!(told.lines().count(), 13, "{told}");
    }

    #[test]
    fn a_password_is_in_no_problem() {
        let told = problems("[[groups]]\nversion = \"3.1.1\"\npassword = \"hunter2\"\n");
        assert!(told.contains("username") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn no_group_is_a_problem() {
        assert!(problems("server = \"h:1\"\n").contains("[[groups]]"));
    }
}
