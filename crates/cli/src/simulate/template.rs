//! Texts with places to fill in: `{"vehicle": "${client_id}", "speed": ${speed}}`. Pure.

use std::fmt::Write as _;

/// What can stand in the place of a name.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Number,
    ClientId,
    Group,
    Sequence,
    Time,
    UnixMillis,
    Latitude,
    Longitude,
    Speed,
    Heading,
    /// A number between two others, with so many digits behind the point.
    Random {
        low: f64,
        high: f64,
        digits: usize,
    },
    /// One of some texts.
    Choice(Vec<String>),
}

/// The names, for messages.
const NAMES: &str =
    "n, client_id, group, seq, time, unix_ms, lat, lon, speed, heading, random:LOW:HIGH, choice:A|B|C";

/// A text with places to fill in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Part>);

/// What the places are filled with.
#[derive(Clone, Debug)]
pub(super) struct Values<'a> {
    /// The vehicle's number in its group, from 1.
    pub(super) number: u32,
    pub(super) client_id: &'a str,
    pub(super) group: &'a str,
    /// The how-manieth message of its kind, from 1.
    pub(super) sequence: u64,
    pub(super) unix_millis: u64,
    /// Degrees.
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    /// 0 is north.
    pub(super) heading: f64,
    pub(super) kmh: f64,
}

impl Template {
    /// # Errors
    /// What is wrong and what is allowed.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(place) = rest.find('$') {
            let (before, after) = rest.split_at(place);
            push(&mut parts, before);
            if let Some(after) = after.strip_prefix("$$") {
                push(&mut parts, "$");
                rest = after;
                continue;
            }
            let inner = after.strip_prefix("${").and_then(|after| after.split_once('}'));
            let Some((name, after)) = inner else {
                return Err("a $ that is meant as such is written $$; a place is ${name}".to_owned());
            };
            parts.push(part(name).ok_or_else(|| format!("${{{name}}} is no place; there are {NAMES}"))?);
            rest = after;
        }
        push(&mut parts, rest);
        Ok(Self(parts))
    }

    /// Whether every vehicle of a group gets another text.
    pub(super) fn tells_vehicles_apart(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Number | Part::ClientId))
    }

    /// Whether nothing but the vehicle decides the text: it has no place for time, chance or the drive.
    pub(super) fn is_fixed(&self) -> bool {
        let fixed = |part: &Part| matches!(part, Part::Text(_) | Part::Number | Part::ClientId | Part::Group);
        self.0.iter().all(fixed)
    }

    /// The text with its places filled.
    pub(super) fn fill(&self, values: &Values<'_>, random: &mut fastrand::Rng) -> String {
        let mut out = String::new();
        for part in &self.0 {
            // Writing to a string cannot fail.
            let _ = match part {
                Part::Text(text) => out.write_str(text),
                Part::Number => write!(out, "{}", values.number),
                Part::ClientId => out.write_str(values.client_id),
                Part::Group => out.write_str(values.group),
                Part::Sequence => write!(out, "{}", values.sequence),
                Part::Time => out.write_str(&runtime::clock::rfc3339(values.unix_millis)),
                Part::UnixMillis => write!(out, "{}", values.unix_millis),
                Part::Latitude => write!(out, "{:.6}", values.latitude),
                Part::Longitude => write!(out, "{:.6}", values.longitude),
                Part::Speed => write!(out, "{:.1}", values.kmh),
                Part::Heading => write!(out, "{:.1}", values.heading),
                Part::Random { low, high, digits } => {
                    write!(out, "{:.digits$}", low + (high - low) * random.f64())
                }
                Part::Choice(texts) => out.write_str(random.choice(texts.iter()).map_or("", String::as_str)),
            };
        }
        out
    }

    /// The filter that matches every vehicle's text, if it is a topic whose places are whole levels.
    pub(super) fn filter(&self, group: &str) -> Option<String> {
        let mark = '\u{1}';
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Group => text.push_str(group),
                Part::Number | Part::ClientId => text.push(mark),
                _ => return None,
            }
        }
        let level = |level: &str| match level {
            level if level.len() == 1 && level.starts_with(mark) => Some("+".to_owned()),
            level if level.contains(mark) => None,
            level => Some(level.to_owned()),
        };
        text.split('/').map(level).collect::<Option<Vec<_>>>().map(|levels| levels.join("/"))
    }
}

fn push(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn part(name: &str) -> Option<Part> {
    Some(match name {
        "n" => Part::Number,
        "client_id" => Part::ClientId,
        "group" => Part::Group,
        "seq" => Part::Sequence,
        "time" => Part::Time,
        "unix_ms" => Part::UnixMillis,
        "lat" => Part::Latitude,
        "lon" => Part::Longitude,
        "speed" => Part::Speed,
        "heading" => Part::Heading,
        _ => {
            if let Some(texts) = name.strip_prefix("choice:") {
                return Some(Part::Choice(texts.split('|').map(str::to_owned).collect()));
            }
            let (low, high) = name.strip_prefix("random:")?.split_once(':')?;
            let digits = [low, high].map(|text| text.split_once('.').map_or(0, |(_, digits)| digits.len()));
            let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
            let digits = digits.into_iter().max().unwrap_or(0);
            return (low.is_finite() && high.is_finite() && low <= high && digits <= 9)
                .then_some(Part::Random { low, high, digits });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'static> = Values {
        number: 7,
        client_id: "car-7",
        group: "cars",
        sequence: 3,
        unix_millis: 1_767_225_600_000,
        latitude: 48.5,
        longitude: 11.25,
        heading: 90.0,
        kmh: 50.04,
    };

    fn filled(text: &str) -> String {
        Template::parse(text).unwrap().fill(&VALUES, &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn places_are_filled() {
        for (text, expected) in [
            ("", ""),
            ("plain { \"a\": 1 }", "plain { \"a\": 1 }"),
            ("${group}/${n}/${client_id}#${seq}", "cars/7/car-7#3"),
            ("${lat} ${lon} ${speed} ${heading}", "48.500000 11.250000 50.0 90.0"),
            ("${time}|${unix_ms}", "2026-01-01T00:00:00.000Z|1767225600000"),
            ("$$${n}$$", "$7$"),
            ("${choice:only}", "only"),
            ("${random:4:4}", "4"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn chance_stays_in_its_range_and_has_its_digits() {
        let template = Template::parse("${random:-1.50:2.5} ${choice:a|b}").unwrap();
        let mut random = fastrand::Rng::with_seed(2);
        let mut letters = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let text = template.fill(&VALUES, &mut random);
            let (number, letter) = text.split_once(' ').unwrap();
            let value: f64 = number.parse().unwrap();
            assert!((-1.5..=2.5).contains(&value) && number.split_once('.').unwrap().1.len() == 2, "{text}");
            letters.insert(letter.to_owned());
        }
        assert_eq!(letters.len(), 2);
    }

    #[test]
    fn what_is_no_place_is_told() {
        for text in ["${", "$", "$n", "${nn}", "${random:2:1}", "${random:a:b}", "${random:1}", "a${n"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(Template::parse("${velocity}").unwrap_err().contains("speed, heading"));
    }

    #[test]
    fn a_filter_matches_every_vehicle_where_places_are_levels() {
        let filter = |text: &str| Template::parse(text).unwrap().filter("cars");
        assert_eq!(filter("fleet/${group}/${client_id}/answer").as_deref(), Some("fleet/cars/+/answer"));
        assert_eq!(filter("fleet/car-${n}/answer"), None);
        assert_eq!(filter("fleet/${time}"), None);
    }
}
