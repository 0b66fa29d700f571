//! What of each thing stands in a table.

use api::broker::{Client, Subscription};
use api::gateway::{Connection, Listener, Pin, Server};
use api::node::Node;
use serde_json::Value;

use super::table::{Cell, Row, Tone};

impl Row for Client {
    const TITLES: &'static [&'static str] =
        &["CLIENTID", "USERNAME", "MQTT", "STATE", "PEER", "NODE", "CONNECTED_AT", "SUBSCRIPTIONS", "QUEUED"];

    fn cells(&self) -> Vec<Cell> {
        let state = if self.connected {
            Cell::text("connected").tone(Tone::Good)
        } else {
            Cell::text("disconnected").tone(Tone::Watch)
        };
        vec![
            Cell::text(&self.clientid),
            Cell::maybe(self.username.as_deref()),
            Cell::text(version(self.proto_ver)),
            state,
            Cell::text(&self.peer),
            Cell::text(&self.node),
            Cell::text(&self.connected_at),
            Cell::number(&self.subscriptions_cnt),
            Cell::number(&self.mqueue_len),
        ]
    }
}

impl Row for Subscription {
    const TITLES: &'static [&'static str] = &["TOPIC", "QOS", "NL", "RAP", "RH", "SUBID"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.topic),
            Cell::number(&self.qos),
            Cell::number(&self.nl),
            Cell::number(&self.rap),
            Cell::number(&self.rh),
            self.subid.map_or_else(|| Cell::maybe(None), |id| Cell::number(&id)),
        ]
    }
}

impl Row for Connection {
    const TITLES: &'static [&'static str] = &[
        "CLIENTID",
        "USERNAME",
        "MQTT",
        "PEER",
        "UPSTREAM",
        "SERVER",
        "CHOSEN_BY",
        "CONNECTED_AT",
        "IN",
        "OUT",
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.clientid),
            Cell::maybe(self.username.as_deref()),
            Cell::maybe(self.proto_ver.map(version)),
            Cell::text(&self.peer),
            Cell::text(&self.upstream),
            Cell::text(&self.server),
            Cell::text(&self.chosen_by),
            Cell::text(&self.connected_at),
            Cell::number(&bytes(self.bytes_in)),
            Cell::number(&bytes(self.bytes_out)),
        ]
    }
}

/// A server with the name of its upstream.
pub(super) struct ServerOf<'a> {
    pub(super) upstream: &'a str,
    pub(super) server: &'a Server,
}

impl Row for ServerOf<'_> {
    const TITLES: &'static [&'static str] = &[
        "UPSTREAM",
        "SERVER",
        "ADDRESS",
        "WEIGHT",
        "STATE",
        "CONNECTIONS",
        "TOTAL",
        "FAILS",
        "IN",
        "OUT",
        "LAST_ERROR",
    ];

    fn cells(&self) -> Vec<Cell> {
        let server = self.server;
        let tone = match server.state.as_str() {
            "up" => Tone::Good,
            "draining" | "down" => Tone::Watch,
            "unavailable" => Tone::Bad,
            _ => Tone::Plain,
        };
        vec![
            Cell::text(self.upstream),
            Cell::text(&server.name),
            Cell::text(&server.address),
            Cell::number(&server.weight),
            Cell::text(&server.state).tone(tone),
            Cell::number(&server.connections),
            Cell::number(&server.connections_total),
            Cell::number(&server.fails),
            Cell::number(&bytes(server.bytes_in)),
            Cell::number(&bytes(server.bytes_out)),
            Cell::maybe(server.last_error.as_deref()),
        ]
    }
}

impl Row for Listener {
    const TITLES: &'static [&'static str] =
        &["LISTENER", "UPSTREAM", "PROXY", "CONNECTIONS", "MAX", "ACCEPTED", "SERVED", "REFUSED"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.name),
            Cell::text(&self.upstream),
            Cell::text(if self.proxy_protocol { "yes" } else { "no" }),
            Cell::number(&self.connections),
            Cell::number(&self.max_connections),
            Cell::number(&self.accepted_total),
            Cell::number(&self.served_total),
            Cell::number(&self.refused_total),
        ]
    }
}

impl Row for Pin {
    const TITLES: &'static [&'static str] = &["KEY", "SERVER", "ORIGIN"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::text(&self.key), Cell::text(&self.server), Cell::text(&self.origin)]
    }
}

impl Row for Node {
    const TITLES: &'static [&'static str] = &[
        "NODE",
        "STATUS",
        "VERSION",
        "UPTIME",
        "CONNECTIONS",
        "SESSIONS",
        "SUBSCRIPTIONS",
        "RETAINED",
        "ENGINE",
        "DURABLE",
    ];

    fn cells(&self) -> Vec<Cell> {
        let tone = if self.node_status == "running" { Tone::Good } else { Tone::Watch };
        vec![
            Cell::text(&self.node),
            Cell::text(&self.node_status).tone(tone),
            Cell::text(&self.version),
            Cell::number(&uptime(self.uptime)),
            Cell::number(&self.connections),
            Cell::number(&self.sessions),
            Cell::number(&self.subscriptions),
            Cell::number(&self.retained),
            Cell::text(&self.engine),
            Cell::text(if self.durable { "yes" } else { "no" }),
        ]
    }
}

/// The fields of an object in their order, values as a person writes them.
pub(super) fn fields(object: &Value) -> Vec<(String, String)> {
    let fields = object.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), plain(value))).collect()
}

/// A value without the quotes of JSON where none are needed.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The protocol level of a CONNECT as the version that people know.
fn version(level: u8) -> &'static str {
    match level {
        3 => "3.1",
        4 => "3.1.1",
        5 => "5.0",
        _ => "?",
    }
}

/// Bytes with a binary unit, three digits or so.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(exponent) = (0..UNITS.len()).rev().find(|&exponent| count >> (10 * (exponent + 1)) > 0) else {
        return format!("{count} B");
    };
    // Tenths, rounded down: 1023.99 KiB must not become 1024.0 KiB.
    let tenths = (u128::from(count) * 10) >> (10 * (exponent + 1));
    match tenths {
        0..1000 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[exponent]),
        _ => format!("{} {}", tenths / 10, UNITS[exponent]),
    }
}

/// Milliseconds as the two greatest units.
fn uptime(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bytes_have_the_greatest_unit_that_they_fill() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023 KiB"),
            (1_048_576, "1.0 MiB"),
            (123_456_789, "117 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn uptimes_have_their_two_greatest_units() {
        for (milliseconds, text) in [
            (999, "0s"),
            (59_999, "59s"),
            (60_000, "1m 0s"),
            (3_725_000, "1h 2m"),
            (90_000_000, "1d 1h"),
            (86_400_000 * 400, "400d 0h"),
        ] {
            assert_eq!(uptime(milliseconds), text, "{milliseconds}");
        }
    }

    #[test]
    fn fields_keep_their_order_and_lose_their_quotes() {
        let object = json!({"z": "text", "a": null, "m": 7, "e": "", "l": ["x"]});
        let texts = fields(&object);
        let expected = [("z", "text"), ("a", "-"), ("m", "7"), ("e", "\"\""), ("l", "[\"x\"]")];
        assert_eq!(texts, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
