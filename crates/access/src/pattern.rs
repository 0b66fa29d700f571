//! Topic filters as rules write them, and what one filter says of another.
//!
//! A level, or a part of it, may be `${clientid}` or `${username}`. What a client chose itself must not widen a rule: a value that
//! is empty or holds `/`, `+`, `#` or U+0000, or would make a topic that begins with `$`, fills no placeholder. A rule that allows
//! matches nothing then; a rule that denies denies everything from that place on.
//! Must not know: rules, clients, sessions.

use mqtt::filter::Filter;

/// A topic filter of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The words between the placeholders; one more than those.
    words: Vec<Box<str>>,
    placeholders: Vec<Placeholder>,
    /// `eq `: the wildcards are taken as they are written.
    exact: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    ClientId,
    Username,
}

/// A filter as it is for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) text: Box<str>,
    pub(crate) exact: bool,
}

/// Why a text is no pattern, as what is allowed instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("${{clientid}} or ${{username}} between ${{ and }}")]
    Placeholder,
    #[error("use ${{clientid}}/${{username}} for Mosquitto's %c/%u")]
    Mosquitto,
    #[error("the filter alone: a rule for a/b holds for $share/group/a/b too")]
    Shared,
    #[error("a topic filter: {0}")]
    Filter(String),
}

impl Pattern {
    /// Reads `vehicles/${clientid}/#`, or `eq a/#` for exactly that filter or topic.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let (exact, text) = match text.strip_prefix("eq ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        // taken as text it would be a rule for a level that nobody has
        if text.split('/').any(|level| matches!(level, "%c" | "%u")) {
            return Err(PatternError::Mosquitto);
        }
        let (mut words, mut placeholders) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').ok_or(PatternError::Placeholder)?;
            placeholders.push(match name {
                "clientid" => Placeholder::ClientId,
                "username" => Placeholder::Username,
                _ => return Err(PatternError::Placeholder),
            });
            words.push(before.into());
            rest = after;
        }
        words.push(rest.into());
        let pattern = Self { words, placeholders, exact };
        // any value that may fill a placeholder makes as good a filter as this letter does
        let example = pattern.fill(|_| Some("x")).ok_or(PatternError::Placeholder)?;
        let filter = Filter::parse(&example).map_err(|error| PatternError::Filter(error.to_string()))?;
        if filter.share().is_some() {
            return Err(PatternError::Shared);
        }
        Ok(pattern)
    }

    /// Whether it is the same for every client.
    pub(crate) fn is_fixed(&self) -> bool {
        self.placeholders.is_empty()
    }

    /// As it is for a client. `None`: it matches nothing. `denies`: it stands in a rule that denies.
    pub(crate) fn resolve(&self, clientid: &str, username: Option<&str>, denies: bool) -> Option<Resolved> {
        let value = |placeholder| match placeholder {
            Placeholder::ClientId => Some(clientid),
            Placeholder::Username => username,
        };
        let usable = |value: &&str| !value.is_empty() && !value.contains(['/', '+', '#', '\0']);
        let filled = self.fill(|p| value(p).filter(usable));
        // `${clientid}/x` for a client that calls itself `$SYS` is no topic of that client
        let reserved = !self.is_fixed()
            && !self.words.first().is_some_and(|word| word.starts_with('$'))
            && filled.as_ref().is_some_and(|filled| filled.starts_with('$'));
        match filled {
            Some(text) if !reserved => Some(Resolved { text: text.into(), exact: self.exact }),
            _ if !denies => None,
            _ => Some(Resolved { text: self.up_to_the_first_placeholder().into(), exact: false }),
        }
    }

    fn fill<'a>(&self, value: impl Fn(Placeholder) -> Option<&'a str>) -> Option<String> {
        let mut words = self.words.iter();
        let mut text = String::from(words.next().map_or("", |word| &**word));
        for (placeholder, word) in self.placeholders.iter().zip(words) {
            text.push_str(value(*placeholder)?);
            text.push_str(word);
        }
        Some(text)
    }

    /// Everything below the level before the first placeholder.
    fn up_to_the_first_placeholder(&self) -> String {
        let first = self.words.first().map_or("", |word| &**word);
        let level = first.rfind('/').map_or(0, |slash| slash + 1);
        format!("{}#", first.get(..level).unwrap_or_default())
    }
}

/// Whether every topic that `filter` matches is one that `pattern` matches. Both are valid and without `$share`.
pub(crate) fn covers(pattern: &str, filter: &str) -> bool {
    let wild = |text: &str| text.starts_with(['+', '#']);
    if wild(pattern) && filter.starts_with('$') {
        // wildcards in the first place match no topic that begins with `$` [MQTT-4.7.2-1]
        return false;
    }
    let (mut wide, mut narrow) = (pattern.split('/'), filter.split('/'));
    // what `#` and `/#` match has one level more at least: the empty text is no topic [MQTT-4.7.3-1]
    let goes_on = matches!(filter, "#" | "/#");
    loop {
        match (wide.next(), narrow.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some("#")) if goes_on => return wide.next() == Some("#"),
            (Some(_), Some("#")) => return false,
            (Some(level), Some(name)) if level == "+" || level == name => {}
            _ => return false,
        }
    }
}

/// Whether some topic is matched by both. Both are valid and without `$share`.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let wild = |text: &str| text.starts_with(['+', '#']);
    if (wild(one) && other.starts_with('$')) || (wild(other) && one.starts_with('$')) {
        return false;
    }
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    // whether what both match so far is nothing but one empty level: that is no topic, and `/#` matches it only as its parent
    let mut empty = None;
    loop {
        match (ones.next(), others.next()) {
            (None, Some("#")) | (Some("#"), None) => return empty != Some(true),
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {
                empty = Some(empty.is_none() && (a.is_empty() || b.is_empty()));
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt::filter::matches;
    use proptest::prelude::*;

    use super::*;

    fn resolve(pattern: &str, clientid: &str, username: Option<&str>, denies: bool) -> Option<String> {
        let resolved = Pattern::parse(pattern).unwrap().resolve(clientid, username, denies)?;
        Some(resolved.text.into())
    }

    #[test]
    fn placeholders_of_mosquitto_are_told_and_other_percent_signs_are_text() {
        for text in ["vehicles/%c/#", "%u", "eq a/%c"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::Mosquitto), "{text}");
        }
        let said = PatternError::Mosquitto.to_string();
        assert!(said.starts_with("use ${clientid}/${username}"), "{said}");
        assert!(Pattern::parse("load/50%/%cpu/x%u").is_ok());
    }

    #[test]
    fn placeholders_are_levels_or_parts_of_them() {
        let allow = |pattern| resolve(pattern, "car1", Some("ann"), false);
        assert_eq!(allow("vehicles/${clientid}/#").as_deref(), Some("vehicles/car1/#"));
        assert_eq!(allow("${username}/v-${clientid}").as_deref(), Some("ann/v-car1"));
        assert_eq!(allow("${clientid}${username}").as_deref(), Some("car1ann"));
        assert_eq!(allow("$bridge/${clientid}").as_deref(), Some("$bridge/car1"));
        assert_eq!(resolve("u/${username}", "car1", None, false), None, "it has no user name");
    }

    /// What a device calls itself must not give it the topics of others.
    #[test]
    fn a_name_with_wildcards_or_slashes_widens_no_rule() {
        for name in ["+", "#", "a/#", "a/b", "/", "", "a\0", "x+"] {
            assert_eq!(resolve("vehicles/${clientid}/#", name, None, false), None, "{name:?}");
            assert_eq!(resolve("v/${username}", "car1", Some(name), false), None, "{name:?}");
        }
        assert_eq!(resolve("${clientid}/#", "$SYS", None, false), None);
        assert_eq!(resolve("${clientid}${username}", "$", Some("SYS"), false), None);
    }

    #[test]
    fn a_name_that_fills_no_placeholder_escapes_no_rule_that_denies() {
        let deny = |pattern| resolve(pattern, "a/b", None, true);
        assert_eq!(deny("vehicles/${clientid}/secret").as_deref(), Some("vehicles/#"));
        assert_eq!(deny("vehicles/v-${clientid}").as_deref(), Some("vehicles/#"));
        assert_eq!(deny("eq ${clientid}").as_deref(), Some("#"));
        assert_eq!(resolve("${clientid}/x", "$SYS", None, true).as_deref(), Some("#"));
    }

    #[test]
    fn what_is_no_pattern_is_told_what_is() {
        let error = |text: &str| Pattern::parse(text).unwrap_err().to_string();
        assert!(error("a/${client}").contains("${clientid} or ${username}"));
        assert!(error("a/${clientid").contains("${clientid} or ${username}"));
        assert!(error("a/#/b").contains("MQTT-4.7.1-1"));
        assert!(error("").contains("empty"));
        assert!(error("eq ").contains("empty"));
        assert!(error("$share/g/a").contains("$share"));
        assert!(error("a+${clientid}").contains("MQTT-4.7.1-2"));
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("+"), Just("$s")];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map("a filter", |(levels, open)| {
            let mut levels = levels;
            if open {
                levels.push("#");
            }
            let text = levels.join("/");
            (!text.is_empty()).then_some(text)
        })
    }

    /// Every topic of up to five levels that could tell two such filters apart.
    fn topics() -> Vec<String> {
        let mut all: Vec<String> = vec![];
        let mut last = vec![String::new()];
        for depth in 0..5 {
            let mut next = vec![];
            for before in &last {
                for level in ["a", "b", "", "c", "$s"] {
                    next.push(if depth == 0 { level.to_owned() } else { format!("{before}/{level}") });
                }
            }
            all.extend(next.iter().filter(|t| !t.is_empty()).cloned());
            last = next;
        }
        all
    }

    /// `/#` matches `/` and what is below, and the empty text is no topic [MQTT-4.7.3-1].
    #[test]
    fn an_empty_first_level_alone_is_no_topic() {
        assert!(covers("/+/#", "/#") && covers("+/+/#", "/#") && covers("+/#", "#") && !covers("+/+/#", "#"));
        assert!(!overlap("+", "/#") && !overlap("/#", "+"));
        assert!(overlap("+/+", "/#") && overlap("+/#", "/#") && overlap("a", "a/#") && overlap("+", "+/#"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Oracle: all topics there are.
        #[test]
        fn covering_and_overlapping_are_what_topics_say(one in filter(), other in filter(), top in any::<bool>()) {
            let other = if top { "#".to_owned() } else { other };
            let topics = topics();
            let covered = topics.iter().all(|t| !matches(&other, t) || matches(&one, t));
            let both = topics.iter().any(|t| matches(&other, t) && matches(&one, t));
            prop_assert_eq!(covers(&one, &other), covered, "{} covers {}", one, other);
            prop_assert_eq!(overlap(&one, &other), both, "{} overlaps {}", one, other);
            prop_assert_eq!(overlap(&other, &one), both);
        }

        #[test]
        fn no_name_gives_topics_of_another(name in "\\PC{0,12}|[$+#/ab]{0,4}", topic in "[vab$+]{1,2}(/[ab$+]{0,2}){0,3}") {
            let pattern = Pattern::parse("v/${clientid}/#").unwrap();
            if let Some(resolved) = pattern.resolve(&name, None, false) && !topic.contains('+') && matches(&resolved.text, &topic) {
                let (own, below) = (format!("v/{name}"), format!("v/{name}/"));
                prop_assert!(topic == own || topic.starts_with(&below));
            }
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*|[${}a-z/+#]{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.resolve("a", None, true);
            }
        }
    }
}
