//! `-D COMMAND NAME VALUE`: properties of MQTT 5.

use client::Options;
use mqtt::packet::PublishProperties;

/// The values of every `-D` on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct PropertyArgs(Vec<Vec<String>>);

const ID: &str = "property";

impl clap::FromArgMatches for PropertyArgs {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let all = matches.get_occurrences::<String>(ID).into_iter().flatten();
        Ok(Self(all.map(|one| one.cloned().collect()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for PropertyArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.arg(
            clap::Arg::new(ID)
                .short('D')
                .long("property")
                .num_args(3..=4)
                .action(clap::ArgAction::Append)
                .allow_negative_numbers(true)
                .value_names(["COMMAND", "NAME", "VALUE"])
                .help("MQTT 5 property of connect, publish, subscribe, unsubscribe, disconnect or will; a user-property takes a name and a value"),
        )
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// The properties by the packet they belong to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Properties {
    /// There was a `-D`, which makes the connection one of MQTT 5.
    pub(crate) given: bool,
    pub(crate) publish: PublishProperties<'static>,
    pub(crate) will: PublishProperties<'static>,
    pub(crate) will_delay_interval: Option<u32>,
    pub(crate) subscription_identifier: Option<u32>,
    pub(crate) subscribe_user: Vec<(String, String)>,
    pub(crate) unsubscribe_user: Vec<(String, String)>,
    pub(crate) disconnect_user: Vec<(String, String)>,
    pub(crate) disconnect_session_expiry: Option<u32>,
    connect: Connect,
}

#[derive(Clone, Debug, Default)]
struct Connect {
    user: Vec<(String, String)>,
    session_expiry_interval: Option<u32>,
    receive_maximum: Option<u16>,
    maximum_packet_size: Option<u32>,
    topic_alias_maximum: Option<u16>,
    request_response_information: Option<bool>,
    request_problem_information: Option<bool>,
}

impl PropertyArgs {
    /// # Errors
    /// The first property that is not allowed there, or whose value is not.
    pub(crate) fn parse(&self) -> Result<Properties, String> {
        let mut all = Properties { given: !self.0.is_empty(), ..Properties::default() };
        for words in &self.0 {
            let told = |error: String| format!("-D {}: {error}", words.join(" "));
            match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                [command, "user-property", name, value] => {
                    all.user(command, (name.to_owned(), value.to_owned())).map_err(told)?;
                }
                [_, "user-property", _] => {
                    return Err(told("a user property needs a name and a value".to_owned()));
                }
                [command, name, value] => all.set(command, name, value).map_err(told)?,
                _ => return Err(told("too many values".to_owned())),
            }
        }
        Ok(all)
    }
}

impl Properties {
    /// Those of CONNECT.
    pub(crate) fn apply_to(&self, options: &mut Options) {
        let connect = &self.connect;
        options.user_properties.clone_from(&connect.user);
        options.session_expiry_interval = connect.session_expiry_interval.or(options.session_expiry_interval);
        options.receive_maximum = connect.receive_maximum;
        options.maximum_packet_size = connect.maximum_packet_size;
        options.topic_alias_maximum = connect.topic_alias_maximum.unwrap_or(0);
        options.request_response_information = connect.request_response_information;
        options.request_problem_information = connect.request_problem_information;
    }

    fn user(&mut self, command: &str, pair: (String, String)) -> Result<(), String> {
        match command.to_ascii_lowercase().as_str() {
            "connect" => self.connect.user.push(pair),
            "publish" => self.publish.user_properties.push((pair.0.into(), pair.1.into())),
            "will" => self.will.user_properties.push((pair.0.into(), pair.1.into())),
            "subscribe" => self.subscribe_user.push(pair),
            "unsubscribe" => self.unsubscribe_user.push(pair),
            "disconnect" => self.disconnect_user.push(pair),
            _ => return Err(UNKNOWN_COMMAND.to_owned()),
        }
        Ok(())
    }

    fn set(&mut self, command: &str, name: &str, value: &str) -> Result<(), String> {
        match command.to_ascii_lowercase().as_str() {
            "connect" => self.connect.set(name, value),
            "publish" if name == "topic-alias" => once(&mut self.publish.topic_alias, positive(value)?),
            "publish" => message_property(&mut self.publish, name, value),
            "will" if name == "will-delay-interval" => once(&mut self.will_delay_interval, number(value)?),
            "will" => message_property(&mut self.will, name, value),
            "subscribe" if name == "subscription-identifier" => {
                let identifier: u32 = number(value)?;
                if !(1..=268_435_455).contains(&identifier) {
                    return Err("allowed: 1 to 268435455".to_owned());
                }
                once(&mut self.subscription_identifier, identifier)
            }
            "disconnect" if name == "session-expiry-interval" => {
                once(&mut self.disconnect_session_expiry, number(value)?)
            }
            "subscribe" => not_here(name, "subscription-identifier, user-property"),
            "unsubscribe" => not_here(name, "user-property"),
            "disconnect" => not_here(name, "session-expiry-interval, user-property"),
            _ => Err(UNKNOWN_COMMAND.to_owned()),
        }
    }
}

impl Connect {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "session-expiry-interval" => once(&mut self.session_expiry_interval, number(value)?),
            "receive-maximum" => once(&mut self.receive_maximum, positive(value)?),
            "maximum-packet-size" => {
                let size: u32 = number(value)?;
                if size == 0 {
                    return Err("allowed: 1 to 4294967295 [3.1.2.11.4]".to_owned());
                }
                once(&mut self.maximum_packet_size, size)
            }
            "topic-alias-maximum" => once(&mut self.topic_alias_maximum, number(value)?),
            "request-response-information" => once(&mut self.request_response_information, flag(value)?),
            "request-problem-information" => once(&mut self.request_problem_information, flag(value)?),
            "authentication-method" | "authentication-data" => {
                Err("this tool knows no authentication method".to_owned())
            }
            _ => not_here(
                name,
                "maximum-packet-size, receive-maximum, request-problem-information, request-response-information, session-expiry-interval, topic-alias-maximum, user-property",
            ),
        }
    }
}

fn message_property(
    properties: &mut PublishProperties<'static>,
    name: &str,
    value: &str,
) -> Result<(), String> {
    match name {
        "content-type" => once(&mut properties.content_type, value.to_owned().into()),
        "response-topic" => once(&mut properties.response_topic, value.to_owned().into()),
        "correlation-data" => once(&mut properties.correlation_data, value.as_bytes().to_vec().into()),
        "message-expiry-interval" => once(&mut properties.message_expiry_interval, number(value)?),
        "payload-format-indicator" => once(&mut properties.payload_format_indicator, flag(value)?),
        _ => not_here(
            name,
            "content-type, correlation-data, message-expiry-interval, payload-format-indicator, response-topic, topic-alias (publish), will-delay-interval (will), user-property",
        ),
    }
}

const UNKNOWN_COMMAND: &str = "allowed commands: connect, publish, subscribe, unsubscribe, disconnect, will";

fn not_here(name: &str, allowed: &str) -> Result<(), String> {
    Err(format!("no property {name} here; allowed: {allowed}"))
}

/// A property may stand only once in a packet (2.2.2.2).
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    if place.is_some() {
        return Err("the property is given twice".to_owned());
    }
    *place = Some(value);
    Ok(())
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, String> {
    let bits = 8 * size_of::<T>();
    value.parse().map_err(|_| format!("a number of {bits} bits is expected"))
}

fn positive(value: &str) -> Result<u16, String> {
    value.parse().ok().filter(|number| *number > 0).ok_or_else(|| "allowed: 1 to 65535".to_owned())
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("allowed: 0, 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(all: &[&[&str]]) -> Result<Properties, String> {
        PropertyArgs(all.iter().map(|one| one.iter().map(|&word| word.to_owned()).collect()).collect())
            .parse()
    }

    #[test]
    fn properties_find_their_packet() {
        let all = parse(&[
            &["publish", "content-type", "text/plain"],
            &["PUBLISH", "user-property", "a", "1"],
            &["publish", "user-property", "a", "2"],
            &["will", "will-delay-interval", "7"],
            &["subscribe", "subscription-identifier", "9"],
            &["connect", "receive-maximum", "3"],
        ])
        .unwrap();
        assert!(all.given);
        assert_eq!(all.publish.content_type.as_deref(), Some("text/plain"));
        assert_eq!(all.publish.user_properties.len(), 2);
        assert_eq!(all.will_delay_interval, Some(7));
        assert_eq!(all.subscription_identifier, Some(9));
        assert_eq!(all.connect.receive_maximum, Some(3));
    }

    #[test]
    fn what_is_not_allowed_is_told() {
        for (words, told) in [
            (&["publish", "receive-maximum", "3"][..], "no property receive-maximum here"),
            (&["publish", "bogus", "3"], "no property bogus here"),
            (&["bogus", "content-type", "3"], "allowed commands"),
            (&["connect", "receive-maximum", "0"], "allowed: 1 to 65535"),
            (&["connect", "receive-maximum", "65536"], "allowed: 1 to 65535"),
            (&["publish", "payload-format-indicator", "2"], "allowed: 0, 1"),
            (&["publish", "message-expiry-interval", "x"], "a number of 32 bits"),
            (&["publish", "user-property", "x"], "a name and a value"),
            (&["publish", "content-type", "x", "y"], "too many values"),
            (&["subscribe", "subscription-identifier", "0"], "1 to 268435455"),
        ] {
            let error = parse(&[words]).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let twice = parse(&[&["publish", "content-type", "a"], &["publish", "content-type", "b"]]);
        assert!(twice.unwrap_err().contains("twice"));
    }
}
