//! `%j` and `%J`: a message as one JSON object, in the layout of mosquitto_sub.

use std::fmt;

use client::Received;
use mqtt::packet::PublishProperties;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Writes the object. With `payload_is_json` the payload stands in it as JSON, without its white space.
///
/// # Errors
/// It should be JSON and is not; nothing is written then.
pub(super) fn write(
    received: &Received,
    time: &str,
    payload_is_json: bool,
    out: &mut Vec<u8>,
) -> Result<(), NotJson> {
    let message = &received.message;
    let payload = match (message.payload.is_empty(), payload_is_json) {
        (true, _) => b"null".to_vec(),
        (false, false) => quoted(&message.payload),
        (false, true) => minimised(&message.payload).map_err(|_| NotJson)?,
    };
    out.extend_from_slice(b"{\"tst\":");
    out.extend(quoted(time.as_bytes()));
    out.extend_from_slice(b",\"topic\":");
    out.extend(quoted(message.topic.as_bytes()));
    let (qos, retain, len) = (message.qos as u8, u8::from(message.retain), message.payload.len());
    out.extend_from_slice(format!(",\"qos\":{qos},\"retain\":{retain},\"payloadlen\":{len}").as_bytes());
    if let Some(id) = received.packet_id {
        out.extend_from_slice(format!(",\"mid\":{id}").as_bytes());
    }
    if message.properties != PublishProperties::default() {
        out.extend_from_slice(b",\"properties\":");
        properties(&message.properties, out);
    }
    out.extend_from_slice(b",\"payload\":");
    out.extend(payload);
    out.push(b'}');
    Ok(())
}

/// The payload is not JSON.
#[derive(Debug)]
pub(super) struct NotJson;

/// Members of an object, with commas between them.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn member(&mut self, name: &str, value: &[u8]) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.extend(quoted(name.as_bytes()));
        self.out.push(b':');
        self.out.extend_from_slice(value);
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

fn properties(properties: &PublishProperties<'_>, out: &mut Vec<u8>) {
    let mut members = Members::open(out);
    if !properties.user_properties.is_empty() {
        let mut object = Vec::new();
        let mut pairs = Members::open(&mut object);
        for (name, value) in &properties.user_properties {
            // A name may come twice here as it may in MQTT [MQTT-3.3.2-18].
            pairs.member(name, &quoted(value.as_bytes()));
        }
        pairs.close();
        members.member("user-properties", &object);
    }
    if let Some(value) = &properties.content_type {
        members.member("content-type", &quoted(value.as_bytes()));
    }
    if let Some(value) = &properties.response_topic {
        members.member("response-topic", &quoted(value.as_bytes()));
    }
    if let Some(value) = &properties.correlation_data {
        members.member("correlation-data", &quoted(value));
    }
    if let Some(value) = properties.payload_format_indicator {
        members.member("payload-format-indicator", if value { b"1" } else { b"0" });
    }
    if let Some(value) = properties.message_expiry_interval {
        members.member("message-expiry-interval", value.to_string().as_bytes());
    }
    for value in &properties.subscription_identifiers {
        members.member("subscription-identifier", value.to_string().as_bytes());
    }
    members.close();
}

/// Bytes as a JSON string. What is not UTF-8 goes through as it is, as in mosquitto_sub: the payload is the
/// publisher's, and a replaced byte would be a lie.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    out
}

/// The same JSON without white space; members keep their order, and may repeat. The parser bounds the depth.
fn minimised(json: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len());
    let mut parser = serde_json::Deserializer::from_slice(json);
    Copy(&mut out).deserialize(&mut parser)?;
    parser.end()?;
    Ok(out)
}

/// Writes the value that it is made from.
struct Copy<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Copy<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.extend_from_slice(value.to_string().as_bytes());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.extend_from_slice(value.to_string().as_bytes());
        Ok(())
    }

    /// A whole number loses its `.0`, as in mosquitto_sub.
    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.extend_from_slice(value.to_string().as_bytes());
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.extend(quoted(value.as_bytes()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        let mut mark = self.0.len();
        let start = mark;
        loop {
            if mark > start {
                self.0.push(b',');
            }
            if elements.next_element_seed(Copy(self.0))?.is_none() {
                self.0.truncate(mark);
                break;
            }
            mark = self.0.len();
        }
        self.0.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.0.push(b'{');
        let mut first = true;
        while let Some(name) = members.next_key::<String>()? {
            if !std::mem::take(&mut first) {
                self.0.push(b',');
            }
            self.0.extend(quoted(name.as_bytes()));
            self.0.push(b':');
            members.next_value_seed(Copy(self.0))?;
        }
        self.0.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(text: &str) -> String {
        String::from_utf8(minimised(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn json_keeps_its_order_and_its_doubles() {
        assert_eq!(
            small(" { \"b\" : [ ] , \"a\":1.0, \"b\": [1 ,\n2.5, {}]}"),
            r#"{"b":[],"a":1,"b":[1,2.5,{}]}"#
        );
        assert_eq!(small(r#""a\u0001\"é""#), r#""a\u0001\"é""#);
        assert_eq!(small("[null,true , false,-7]"), "[null,true,false,-7]");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "not json", "1 2", "[1,]"] {
            assert!(minimised(text.as_bytes()).is_err(), "{text}");
        }
        assert!(minimised("[".repeat(100_000).as_bytes()).is_err(), "depth is bounded");
    }

    #[test]
    fn control_characters_are_escaped_and_other_bytes_go_through() {
        assert_eq!(quoted(b"\x01\x1f\"\\\n\xff\x7f"), b"\"\\u0001\\u001f\\\"\\\\\\n\xff\x7f\"");
    }
}
