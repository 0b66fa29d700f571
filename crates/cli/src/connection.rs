//! What `pub` and `sub` have in common: the flags that say how to connect, and how failures are told.
//!
//! Names, meanings and exit codes are those of mosquitto_pub and mosquitto_sub.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use client::{Disconnected, Message, Options, Password, Will};
use mqtt::{QoS, Version};

use crate::properties::{Properties, PropertyArgs};

/// Session Expiry Interval of a session that does not expire.
const NEVER: u32 = u32::MAX;

/// Flags that say how to connect.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// Host to connect to [default: localhost]
    #[arg(short = 'h', long)]
    host: Option<String>,
    /// Port to connect to [default: 1883, with --ws 8083]
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// User, password, host, port and topic at once: `mqtt://[user[:password]@]host[:port]/topic`; or with the path of a
    /// WebSocket instead of the topic: `ws://[user[:password]@]host[:port]/mqtt`
    #[arg(short = 'L', long)]
    url: Option<String>,
    /// Connect over WebSocket, at the path /mqtt
    #[arg(long)]
    ws: bool,
    /// Local address to connect from
    #[arg(short = 'A', value_name = "ADDRESS")]
    bind_address: Option<IpAddr>,
    /// User name
    #[arg(short, long, allow_hyphen_values = true)]
    username: Option<String>,
    /// Password
    #[arg(short = 'P', long = "pw", allow_hyphen_values = true, value_parser = password)]
    password: Option<Password>,
    /// Client id; without it the broker makes one up
    #[arg(short, long, allow_hyphen_values = true, conflicts_with = "id_prefix")]
    id: Option<String>,
    /// Client id that begins with this and ends with the process id
    #[arg(short = 'I', long, allow_hyphen_values = true)]
    id_prefix: Option<String>,
    /// Keep alive in seconds, 0 to 65535; 0 turns it off
    #[arg(short, long, default_value_t = 60)]
    keepalive: u16,
    /// Keep the session when the connection ends; needs a client id
    #[arg(short = 'c', long = "disable-clean-session")]
    keep_session: bool,
    /// MQTT 5: seconds that the session outlives the connection; -1 for ever [default: 0, with -c -1]
    #[arg(short = 'x', value_name = "SECONDS", allow_hyphen_values = true, value_parser = session_expiry)]
    session_expiry: Option<u32>,
    /// Protocol version: 5, 311 or 31, or mqttv5, mqttv311 or mqttv31 [default: 311, with -D 5]
    #[arg(short = 'V', long, value_parser = protocol_version)]
    protocol_version: Option<Version>,
    /// Topic of a will
    #[arg(long, allow_hyphen_values = true)]
    will_topic: Option<String>,
    /// Payload of the will
    #[arg(long, allow_hyphen_values = true, requires = "will_topic")]
    will_payload: Option<String>,
    /// QoS of the will
    #[arg(long, value_parser = qos, requires = "will_topic")]
    will_qos: Option<QoS>,
    /// Make the will a retained message
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    #[command(flatten)]
    properties: PropertyArgs,
    /// Tell what is done, on standard error
    #[arg(short, long)]
    debug: bool,
    /// Print no error messages
    #[arg(long)]
    quiet: bool,
    /// Accepted for habit's sake: small packets are never held back
    #[arg(long)]
    nodelay: bool,
    #[command(flatten)]
    elsewhere: ElsewhereArgs,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Flags of mosquitto_pub and mosquitto_sub for transports that these tools do not speak.
#[derive(Clone, Debug, Default, clap::Args)]
struct ElsewhereArgs {
    #[arg(long, hide = true)]
    cafile: Option<String>,
    #[arg(long, hide = true)]
    capath: Option<String>,
    #[arg(long, hide = true)]
    cert: Option<String>,
    #[arg(long, hide = true)]
    key: Option<String>,
    #[arg(long, hide = true)]
    keyform: Option<String>,
    #[arg(long, hide = true)]
    ciphers: Option<String>,
    #[arg(long, hide = true)]
    tls_version: Option<String>,
    #[arg(long, hide = true)]
    tls_alpn: Option<String>,
    #[arg(long, hide = true)]
    tls_engine: Option<String>,
    #[arg(long, hide = true)]
    tls_engine_kpass_sha1: Option<String>,
    #[arg(long, hide = true)]
    tls_use_os_certs: bool,
    #[arg(long, hide = true)]
    insecure: bool,
    #[arg(long, hide = true)]
    psk: Option<String>,
    #[arg(long, hide = true)]
    psk_identity: Option<String>,
    #[arg(long, hide = true)]
    proxy: Option<String>,
    #[arg(long, hide = true)]
    unix: Option<String>,
    #[arg(short = 'S', hide = true)]
    srv: bool,
}

impl ElsewhereArgs {
    /// The first of them that was given, and what it would need.
    fn given(&self) -> Option<(&'static str, &'static str)> {
        let tls = "TLS";
        let flags = [
            (self.cafile.is_some(), "--cafile", tls),
            (self.capath.is_some(), "--capath", tls),
            (self.cert.is_some(), "--cert", tls),
            (self.key.is_some(), "--key", tls),
            (self.keyform.is_some(), "--keyform", tls),
            (self.ciphers.is_some(), "--ciphers", tls),
            (self.tls_version.is_some(), "--tls-version", tls),
            (self.tls_alpn.is_some(), "--tls-alpn", tls),
            (self.tls_engine.is_some(), "--tls-engine", tls),
            (self.tls_engine_kpass_sha1.is_some(), "--tls-engine-kpass-sha1", tls),
            (self.tls_use_os_certs, "--tls-use-os-certs", tls),
            (self.insecure, "--insecure", tls),
            (self.psk.is_some(), "--psk", tls),
            (self.psk_identity.is_some(), "--psk-identity", tls),
            (self.proxy.is_some(), "--proxy", "a SOCKS proxy"),
            (self.unix.is_some(), "--unix", "a Unix socket"),
            (self.srv, "-S", "a look-up of SRV records"),
        ];
        flags.into_iter().find(|(given, ..)| *given).map(|(_, flag, needs)| (flag, needs))
    }
}

/// The flags, checked and put together.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) options: Options,
    pub(crate) properties: Properties,
    /// The topic of `-L`.
    pub(crate) topic: Option<String>,
    pub(crate) voice: Voice,
}

impl ConnectionArgs {
    /// Checks the flags against each other. `tool` names the client id that 3.1 asks for.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub(crate) fn connection(&self, tool: &str) -> Result<Connection, String> {
        if let Some((flag, needs)) = self.elsewhere.given() {
            return Err(format!(
                "{flag} needs {needs}; this tool connects over plain TCP or WebSocket to -h and -p"
            ));
        }
        let properties = self.properties.parse()?;
        let version =
            if properties.given { Version::V5 } else { self.protocol_version.unwrap_or(Version::V311) };
        let url = self.url.as_deref().map(Url::parse).transpose()?;
        let url = url.unwrap_or_default();
        let websocket_path = url.websocket_path.or_else(|| self.ws.then(|| WEBSOCKET_PATH.to_owned()));
        let host = self.host.clone().unwrap_or(url.host);
        let usual_port = if websocket_path.is_some() { 8083 } else { 1883 };
        let port = self.port.or(url.port).unwrap_or(usual_port);
        let id = match (&self.id, &self.id_prefix) {
            (Some(id), _) => id.clone(),
            (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
            (None, None) if self.keep_session => {
                return Err("a client id (-i or -I) is needed to keep the session (-c)".to_owned());
            }
            // 3.1 has no empty client id (3.1 there: 1 to 23 characters).
            (None, None) if version == Version::V31 => format!("{tool}-{}", std::process::id()),
            (None, None) => String::new(),
        };
        let username = self.username.clone().or(url.username);
        let password = self.password.clone().or_else(|| url.password.map(Password::from));
        if password.is_some() && username.is_none() && !version.is_v5() {
            return Err("a password (-P) needs a user name (-u) before MQTT 5 [v3 MQTT-3.1.2-22]".to_owned());
        }
        let mut options = Options::new(join(&host, port), id);
        options.version = version;
        options.bind = self.bind_address;
        options.websocket_path = websocket_path;
        options.username = username;
        options.password = password;
        options.keep_alive = self.keepalive;
        options.clean_start = !self.keep_session;
        options.session_expiry_interval =
            self.session_expiry.or_else(|| self.keep_session.then_some(NEVER)).filter(|_| version.is_v5());
        options.will = self.will(&properties)?;
        properties.apply_to(&mut options);
        let voice = Voice { debug: self.debug, quiet: self.quiet };
        Ok(Connection { options, properties, topic: url.topic, voice })
    }

    fn will(&self, properties: &Properties) -> Result<Option<Will>, String> {
        let Some(topic) = &self.will_topic else { return Ok(None) };
        mqtt::topic::validate(topic).map_err(|error| format!("--will-topic {topic}: {error}"))?;
        let message = Message {
            qos: self.will_qos.unwrap_or_default(),
            retain: self.will_retain,
            properties: properties.will.clone(),
            ..Message::new(topic.clone(), self.will_payload.clone().unwrap_or_default())
        };
        Ok(Some(Will { message, delay_interval: properties.will_delay_interval }))
    }

    /// Whether errors are to be told at all.
    pub(crate) fn voice(&self) -> Voice {
        Voice { debug: self.debug, quiet: self.quiet }
    }
}

/// `host:port`, with brackets where the host is an IPv6 address.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Where WebSocket listeners are when nothing is said.
pub(crate) const WEBSOCKET_PATH: &str = "/mqtt";

/// The parts of an `-L` URL.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    host: String,
    port: Option<u16>,
    username: Option<String>,
    password: Option<String>,
    topic: Option<String>,
    websocket_path: Option<String>,
}

impl Default for Url {
    fn default() -> Self {
        let (port, username, password, topic, websocket_path) = (None, None, None, None, None);
        Self { host: "localhost".to_owned(), port, username, password, topic, websocket_path }
    }
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "-L {text}: {what}; expected mqtt://[user[:password]@]host[:port]/topic or \
                 ws://[user[:password]@]host[:port]/path"
            )
        };
        let (websocket, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("ws", rest)) => (true, rest),
            Some((scheme @ ("mqtts" | "wss"), _)) => {
                return Err(format!(
                    "-L {scheme}:// needs TLS; this tool connects over plain TCP or WebSocket"
                ));
            }
            _ => return Err(wrong("the scheme is not mqtt or ws")),
        };
        let (authority, behind) = match rest.split_once('/') {
            Some((authority, behind)) => (authority, Some(behind)),
            None => (rest, None),
        };
        let (topic, websocket_path) = match (websocket, behind) {
            (false, topic) => (topic.filter(|topic| !topic.is_empty()).map(str::to_owned), None),
            (true, Some(path)) => (None, Some(format!("/{path}"))),
            (true, None) => (None, Some(WEBSOCKET_PATH.to_owned())),
        };
        let (user, server) = match authority.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, authority),
        };
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            None => (None, None),
            Some((name, password)) => {
                let password = (!password.is_empty()).then(|| decode(password)).transpose();
                (Some(decode(name).map_err(|error| wrong(&error))?), password.map_err(|error| wrong(&error))?)
            }
        };
        let (host, port) = match server.rsplit_once(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => {
                let port: u16 = port
                    .parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| wrong("the port is no number"))?;
                (host, Some(port))
            }
            _ => (server, None),
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        Ok(Self { host: host.to_owned(), port, username, password, topic, websocket_path })
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "the user name or password is not UTF-8".to_owned())
}

pub(crate) fn qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_u8).ok_or_else(|| "allowed: 0, 1, 2".to_owned())
}

pub(crate) fn protocol_version(text: &str) -> Result<Version, String> {
    match text {
        "5" | "mqttv5" => Ok(Version::V5),
        "311" | "mqttv311" => Ok(Version::V311),
        "31" | "mqttv31" => Ok(Version::V31),
        _ => Err("allowed: 5, 311, 31, mqttv5, mqttv311, mqttv31".to_owned()),
    }
}

pub(crate) fn password(text: &str) -> Result<Password, String> {
    Ok(Password::from(text))
}

fn session_expiry(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "∞" => Ok(NEVER),
        _ => text.parse().map_err(|_| "allowed: 0 to 4294967295, or -1 for ever".to_owned()),
    }
}

/// What goes to standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    debug: bool,
    quiet: bool,
}

impl Voice {
    /// What `-d` asks for.
    pub(crate) fn debug(self, what: impl FnOnce() -> String) {
        if self.debug {
            eprintln!("{}", what());
        }
    }

    /// What `--quiet` holds back.
    pub(crate) fn error(self, what: &str) {
        if !self.quiet {
            eprintln!("{what}");
        }
    }
}

/// Why a tool ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, a file, standard output.
    Local(String),
    /// The connection.
    Connection(Disconnected, Version),
    /// `-W` ran out.
    TimedOut,
}

impl Failure {
    /// Tells it, and gives the exit code.
    pub(crate) fn report(&self, voice: Voice) -> ExitCode {
        match self {
            Self::Local(text) => voice.error(&format!("Error: {text}")),
            Self::Connection(why, _) => voice.error(&format!("Error: {why}")),
            Self::TimedOut => voice.error("Timed out"),
        }
        ExitCode::from(self.code())
    }

    /// A CONNACK's code as it came, and the numbers that libmosquitto gives other ends.
    fn code(&self) -> u8 {
        match self {
            Self::TimedOut => 27,
            Self::Connection(Disconnected::Refused { reason, .. }, version) => {
                if version.is_v5() {
                    reason.value()
                } else {
                    reason.v3_connack()
                }
            }
            Self::Connection(Disconnected::Protocol(_), _) => 2,
            Self::Connection(Disconnected::Lost(_) | Disconnected::ByServer { .. }, _) => 7,
            Self::Connection(Disconnected::PingTimeout, _) => 19,
            Self::Local(_) | Self::Connection(..) => 1,
        }
    }
}

/// A runtime whose driver goes on while the tool's own thread is held up by a file or a pipe.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let result = runtime.block_on(future);
    // A thread that waits for standard input does not come back by itself.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_url_gives_all_its_parts() {
        let all = url("mqtt://me:p%40ss:w@broker.example:1999/a/b/#");
        assert_eq!(all.host, "broker.example");
        assert_eq!(all.port, Some(1999));
        assert_eq!(all.username.as_deref(), Some("me"));
        assert_eq!(all.password.as_deref(), Some("p@ss:w"));
        assert_eq!(all.topic.as_deref(), Some("a/b/#"));
    }

    #[test]
    fn a_url_may_leave_out_everything_but_the_host() {
        for text in ["mqtt://h", "mqtt://h/"] {
            assert_eq!(url(text), Url { host: "h".into(), ..Url::default() });
        }
        assert_eq!(url("mqtt://[::1]/t").host, "[::1]");
        assert_eq!((url("mqtt://[::1]:5/t").host.as_str(), url("mqtt://[::1]:5/t").port), ("[::1]", Some(5)));
    }

    #[test]
    fn a_url_of_a_websocket_has_a_path_and_no_topic() {
        for (text, port, path) in
            [("ws://h", None, "/mqtt"), ("ws://h/", None, "/"), ("ws://h:80/a/b", Some(80), "/a/b")]
        {
            let url = url(text);
            assert_eq!(
                (url.port, url.websocket_path.as_deref(), url.topic),
                (port, Some(path), None),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_url_is_told() {
        for text in [
            "h",
            "http://h",
            "mqtts://h",
            "wss://h/mqtt",
            "mqtt://",
            "mqtt://h:0",
            "mqtt://h:x",
            "mqtt://%ff@h/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_ipv6_host_is_put_into_brackets() {
        assert_eq!(join("::1", 1), "[::1]:1");
        assert_eq!(join("[::1]", 1), "[::1]:1");
        assert_eq!(join("h", 1), "h:1");
    }
}
