//! The whole configuration: one TOML file, one section a role. A role runs where its section is present; with no file
//! at all there are a broker and its API on this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use admin::AdminConfig;
use broker::config::BrokerConfig;
use gateway::config::GatewayConfig;
use runtime::config::{Document, Problems, Table};
use runtime::telemetry::TelemetryConfig;

/// Everything that a file can say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) node: NodeConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) broker: Option<BrokerConfig>,
    pub(crate) gateway: Option<GatewayConfig>,
    pub(crate) admin: Option<AdminConfig>,
    pub(crate) log: TelemetryConfig,
}

/// `[node]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeConfig {
    /// Unique in the cluster; default: the host name.
    pub(crate) name: String,
    /// Where files are kept; locked against a second process.
    pub(crate) data_dir: PathBuf,
    /// Worker threads; default: one for each core.
    pub(crate) workers: usize,
}

/// `[engine]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineConfig {
    /// Log shards, 1 to 64. Default 4.
    pub(crate) shards: u16,
    /// Bytes of log for each shard. Default 64 MiB.
    pub(crate) max_log_bytes: usize,
    /// Frames of each shard that are known if they come again, from 1,024. Default 1,048,576.
    pub(crate) max_log_ids: usize,
    /// Bytes of sessions, retained messages and wills. Default 1 GiB.
    pub(crate) max_register_bytes: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { shards: 4, max_log_bytes: 64 << 20, max_log_ids: 1 << 20, max_register_bytes: 1 << 30 }
    }
}

/// Reads the file, or the defaults without one.
pub(crate) fn load(file: Option<&Path>) -> Result<Config, LoadError> {
    let Some(file) = file else {
        return Ok(read(&Document::empty(), None)?);
    };
    let text =
        std::fs::read_to_string(file).map_err(|error| LoadError::File { file: file.to_owned(), error })?;
    Ok(parse(file, &text)?)
}

/// Reads what stands in the file.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Config, Problems> {
    read(&Document::parse(file, text)?, Some(file))
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {error}", file.display())]
    File { file: PathBuf, error: std::io::Error },
    /// It says something that is not allowed.
    #[error(transparent)]
    Problems(#[from] Problems),
}

impl LoadError {
    /// One line for each problem.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::File { .. } => vec![self.to_string()],
            Self::Problems(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }
}

fn read(document: &Document, file: Option<&Path>) -> Result<Config, Problems> {
    document.read(|root| {
        let folder = file.and_then(Path::parent);
        let node = root.table("node", |t| read_node(t, folder));
        let engine = root.table("engine", read_engine).unwrap_or_default();
        let mut taken = Vec::new();
        let mut broker = root.table("broker", |t| {
            let broker = broker::config::read(t);
            for (index, listener) in broker.listeners.iter().enumerate() {
                claim(t, index, listener.bind, "the broker", &mut taken);
            }
            broker
        });
        let gateway = root.table("gateway", |t| {
            let gateway = gateway::config::read(t);
            for (index, listener) in gateway.listeners.iter().enumerate() {
                claim(t, index, listener.bind, "the gateway", &mut taken);
            }
            gateway
        });
        let mut admin = root.table("admin", |t| {
            let admin = admin::config::read(t);
            if let Some(problem) = clash(admin.bind, "the API", &taken) {
                t.problem("bind", problem);
            }
            admin
        });
        let log = root.table("log", TelemetryConfig::read).unwrap_or_default();
        if file.is_none() {
            broker = Some(BrokerConfig::default());
            admin = Some(AdminConfig::default());
        } else if broker.is_none() && gateway.is_none() && !root.has("broker") && !root.has("gateway") {
            root.problem("broker", "a role to run: a section [broker], [gateway], or both");
        }
        Config {
            node: node.unwrap_or_else(|| NodeConfig {
                name: host_name(),
                data_dir: data_dir(None, folder),
                workers: cores(),
            }),
            engine,
            broker,
            gateway,
            admin,
            log,
        }
    })
}

/// Notes that a listener takes its address; a problem if another listener of this process has it.
fn claim(
    t: &mut Table<'_>,
    index: usize,
    bind: SocketAddr,
    role: &'static str,
    taken: &mut Vec<(SocketAddr, &'static str)>,
) {
    if let Some(problem) = clash(bind, role, taken) {
        t.element_problem("listeners", index, problem);
    }
    taken.push((bind, role));
}

/// What stands against an address, if something else of this process listens there. The very same address twice in one role
/// is told by the role.
fn clash(bind: SocketAddr, role: &str, taken: &[(SocketAddr, &'static str)]) -> Option<String> {
    let (other, by) =
        taken.iter().find(|(other, by)| overlap(*other, bind) && !(*other == bind && *by == role))?;
    Some(format!("another address than {bind}: {by} listens on {other}"))
}

/// Whether two listeners would want the same port of the same address; `0.0.0.0` is every address.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let wide = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (wide || a.ip() == b.ip())
}

fn read_node(t: &mut Table<'_>, folder: Option<&Path>) -> NodeConfig {
    let name = t.string("name");
    let named = name.as_deref().is_none_or(|n| {
        !n.is_empty()
            && n.len() <= 128
            && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
    });
    if !named {
        t.problem("name", "1 to 128 letters, digits, or any of - _ . @");
    }
    let path = t.path("data_dir");
    let workers = t.integer("workers", 1..=1024).and_then(|n| usize::try_from(n).ok());
    NodeConfig {
        name: name.unwrap_or_else(host_name),
        data_dir: data_dir(path, folder),
        workers: workers.unwrap_or_else(cores),
    }
}

fn read_engine(t: &mut Table<'_>) -> EngineConfig {
    let d = EngineConfig::default();
    t.choice("kind", &[("memory", ())]);
    // what is kept in memory only ends with the process, however it is synced: any promise is kept as well
    if let Some(sync) = t.string("sync")
        && !["always", "never"].contains(&sync.as_str())
        && t.duration("sync", std::time::Duration::from_millis(1)..=std::time::Duration::from_secs(3600))
            .is_none()
    {
        t.problem("sync", "\"always\", \"never\" or an interval such as \"1s\"");
    }
    let bytes = |t: &mut Table<'_>, key: &str, default: usize| {
        t.size(key, (1 << 20)..=(1 << 40)).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    };
    EngineConfig {
        shards: t.integer("shards", 1..=64).and_then(|n| u16::try_from(n).ok()).unwrap_or(d.shards),
        max_log_bytes: bytes(t, "max_log_bytes", d.max_log_bytes),
        max_log_ids: t
            .integer("max_log_ids", 1024..=1 << 30)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(d.max_log_ids),
        max_register_bytes: bytes(t, "max_register_bytes", d.max_register_bytes),
    }
}

fn host_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    if name.is_empty() { "node1".to_owned() } else { name }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// As written; beside the file; or, with no file, where the system keeps state.
fn data_dir(written: Option<PathBuf>, folder: Option<&Path>) -> PathBuf {
    if let Some(path) = written {
        return path;
    }
    if let Some(folder) = folder {
        return folder.join("tidegate-data");
    }
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("STATE_DIRECTORY")
        .or_else(|| from("HOME").map(|home| home.join(".local/state/tidegate")))
        .unwrap_or_else(|| PathBuf::from("tidegate-data"))
}

#[cfg(test)]
mod tests {
    use broker::config::WebSocketConfig;

    use super::*;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        super::parse(Path::new("/etc/tidegate/t.toml"), text)
            .map_err(|p| p.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn with_no_file_there_are_a_broker_and_its_api_on_this_machine() {
        let config = load(None).unwrap();
        let broker = config.broker.unwrap();
        assert_eq!(broker.listeners[0].bind.to_string(), "127.0.0.1:1883");
        assert!(broker.listeners[0].allow_anonymous);
        assert_eq!(config.admin.unwrap().bind.to_string(), "127.0.0.1:18083");
        assert_eq!(config.gateway, None);
    }

    #[test]
    fn the_reference_file_is_right_and_says_the_defaults() {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/tidegate.toml"));
        let config = load(Some(file)).unwrap();
        let broker = config.broker.unwrap();
        let broker_listeners = broker.listeners.clone();
        // those whose comment says another default
        let defaults = BrokerConfig {
            max_session_expiry: broker.max_session_expiry,
            server_keep_alive: broker.server_keep_alive,
            max_keep_alive: broker.max_keep_alive,
            topic_rewrite: broker.topic_rewrite.clone(),
            auto_subscribe: broker.auto_subscribe.clone(),
            ..BrokerConfig::default()
        };
        assert_eq!(BrokerConfig { listeners: defaults.listeners.clone(), ..broker }, defaults);
        let web = broker_listeners[1].websocket.as_deref().unwrap();
        let headers = (web.proxy_address_header.clone(), web.proxy_port_header.clone());
        let defaults = WebSocketConfig {
            max_frame_size: Some(u64::from(defaults.max_packet_size) + 65_536),
            proxy_address_header: headers.0,
            proxy_port_header: headers.1,
            ..WebSocketConfig::default()
        };
        assert_eq!(*web, defaults);
        let gateway = config.gateway.unwrap();
        let smallest = "[[gateway.listeners]]\nbind = \"127.0.0.1:1880\"\nupstream = \"brokers\"\n[[gateway.upstreams]]\n\
                        name = \"brokers\"\nservers = [{ address = \"a:1\" }, { address = \"b:1\" }]\n";
        let defaults = parse(smallest).unwrap().gateway.unwrap();
        assert_eq!(gateway.session_log, defaults.session_log);
        let ([listener], [upstream]) = (&*gateway.listeners, &*gateway.upstreams) else {
            panic!("one of each")
        };
        let (accept_rate, idle_timeout) = (listener.accept_rate, listener.idle_timeout);
        let trusted_proxies = listener.trusted_proxies.clone();
        let other = gateway::config::ListenerConfig {
            accept_rate,
            idle_timeout,
            trusted_proxies,
            ..defaults.listeners[0].clone()
        };
        assert_eq!(*listener, other);
        let (proxy_protocol, tries_timeout) = (upstream.proxy_protocol, upstream.tries_timeout);
        let servers = upstream.servers.clone();
        let server = gateway::config::ServerConfig {
            name: servers[1].name.clone(),
            address: servers[1].address.clone(),
            ..defaults.upstreams[0].servers[1].clone()
        };
        assert_eq!(servers[1], server);
        let other = gateway::config::UpstreamConfig {
            proxy_protocol,
            tries_timeout,
            servers,
            ..defaults.upstreams[0].clone()
        };
        assert_eq!(*upstream, other);
        assert_eq!(config.engine, EngineConfig::default());
        assert_eq!(config.admin, Some(AdminConfig::default()));
        assert_eq!(config.log, TelemetryConfig::default());
    }

    #[test]
    fn a_role_runs_where_its_section_is_present() {
        let config = parse("[broker]\n").unwrap();
        assert!(config.broker.is_some() && config.gateway.is_none() && config.admin.is_none());
        assert_eq!(config.node.data_dir, Path::new("/etc/tidegate/tidegate-data"));
    }

    #[test]
    fn a_file_without_a_role_is_a_problem() {
        assert!(parse("[admin]\n").unwrap_err()[0].contains("a role to run"));
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_line() {
        let text = "[node]\nname = \"a b\"\n[engine]\nkind = \"disk\"\n[broker]\nmax_inflight = 0\nfoo = 1\n\
                    [[broker.listeners]]\nbind = \"nowhere\"\n[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:1880\"\nupstream = \"x\"\n";
        let problems = parse(text).unwrap_err();
        for (line, key) in [
            (2, "node.name"),
            (4, "engine.kind"),
            (6, "broker.max_inflight"),
            (7, "broker.foo"),
            (9, "broker.listeners[0].bind"),
            (13, "gateway.listeners[0].upstream"),
        ] {
            let begin = format!("/etc/tidegate/t.toml:{line}: {key}: ");
            assert!(problems.iter().any(|p| p.starts_with(&begin)), "no {begin:?} in {problems:#?}");
        }
    }

    #[test]
    fn roles_that_listen_at_the_same_address_are_a_problem_of_the_file() {
        let text = |gateway: u16, admin: u16| {
            format!(
                "[[broker.listeners]]\nbind = \"127.0.0.1:1883\"\n[[gateway.listeners]]\nbind = \"127.0.0.1:{gateway}\"\n\
                 upstream = \"b\"\n[[gateway.upstreams]]\nname = \"b\"\nservers = [{{ address = \"10.0.0.1:1883\" }}]\n\
                 [admin]\nbind = \"127.0.0.1:{admin}\"\n"
            )
        };
        assert!(parse(&text(1880, 18083)).is_ok());
        let wide = "[[broker.listeners]]\nbind = \"127.0.0.1:1883\"\n[[broker.listeners]]\nbind = \"0.0.0.0:1883\"\n";
        assert!(parse(wide).unwrap_err()[0].contains("the broker listens on 127.0.0.1:1883"));
        assert_eq!(
            parse(&text(1883, 1883)).unwrap_err(),
            [
                "/etc/tidegate/t.toml:3: gateway.listeners[0]: a table: another address than 127.0.0.1:1883: the broker listens on 127.0.0.1:1883",
                "/etc/tidegate/t.toml:10: admin.bind: \"127.0.0.1:1883\": another address than 127.0.0.1:1883: the broker listens on 127.0.0.1:1883",
            ]
        );
        assert!(parse(&text(0, 0)).is_ok(), "the system chooses different ones");
    }

    #[test]
    fn a_shared_subscription_has_a_strategy_of_its_own_or_the_one_for_all() {
        use broker::config::Strategy;

        let groups = |text: &str| format!("[broker]\nshared_subscription_groups = [{text}]\n");
        let good = format!(
            "{}shared_subscription_strategy = \"hash_topic\"\n",
            groups("{ group = \"w\", strategy = \"sticky\" }")
        );
        let broker = parse(&good).unwrap().broker.unwrap();
        assert_eq!(broker.shared_subscription_strategy, Strategy::HashTopic);
        assert_eq!(broker.shared_subscription_groups, [("w".to_owned(), Strategy::Sticky)]);
        for (text, says) in [
            ("{ group = \"a/b\", strategy = \"random\" }", "MQTT-4.8.2-2"),
            ("{ group = \"w\", strategy = \"stick\" }", "did you mean \"sticky\"?"),
            ("{ group = \"w\" }", "how this group chooses"),
            ("{ strategy = \"random\" }", "a ShareName"),
            (
                "{ group = \"w\", strategy = \"random\" }, { group = \"w\", strategy = \"sticky\" }",
                "\"w\" is there twice",
            ),
        ] {
            let problems = parse(&groups(text)).unwrap_err();
            assert!(matches!(problems.as_slice(), [one] if one.contains(says)), "{text}: {problems:#?}");
        }
    }

    #[test]
    fn keys_as_mosquitto_has_them_are_told_what_they_are_called_here() {
        let told = parse(
            "[broker]\nmax_inflight_messages = 20\npersistent_client_expiration = \"1d\"\n\
             [[broker.listeners]]\nbind = \"127.0.0.1:1\"\nport = 1883\nprotocol = \"websockets\"\n",
        )
        .unwrap_err();
        for (line, key) in ["max_inflight", "max_session_expiry", "bind", "transport"].iter().enumerate() {
            assert!(told[line].ends_with(&format!(": unknown key, did you mean {key}?")), "{told:#?}");
        }
        assert_eq!(told.len(), 4, "{told:#?}");
        let told = parse("[broker]\nport = 1883\n").unwrap_err();
        assert!(told[0].ends_with(", did you mean bind in [[broker.listeners]]?"), "{told:#?}");
    }

    #[test]
    fn a_wrong_key_of_a_table_hides_no_other_of_that_table() {
        let problems = |table: &str| parse(&format!("[broker]\n{table}")).unwrap_err();
        for (action, expected) in [("all", 3), ("everything", 4)] {
            let told = problems(&format!(
                "[[broker.topic_rewrite]]\naction = \"{action}\"\nsource = \"a/#/b\"\nregex = \"(\"\ntarget = \"${{x}}\"\n"
            ));
            assert_eq!(told.len(), expected, "{told:#?}");
        }
        let told = problems("[[broker.topic_rewrite]]\nregex = \"(\"\n");
        assert_eq!(told.len(), 4, "three are missing: {told:#?}");
        let told =
            problems("[[broker.auto_subscribe]]\ntopic = \"a/#/b\"\nqos = \"1\"\nno_local = 1\nfoo = 1\n");
        assert_eq!(told.len(), 4, "{told:#?}");
    }

    #[test]
    fn what_a_later_version_brings_is_not_taken_for_a_misspelling() {
        let problems =
            parse("[broker]\n[[broker.listeners]]\nbind = \"127.0.0.1:1\"\ntransport = \"wss\"\ntls = {}\n")
                .unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:#?}");
        assert!(problems.iter().all(|p| p.contains("not in this version")), "{problems:#?}");
    }

    #[test]
    fn a_listener_beyond_this_machine_is_closed_to_anonymous_clients_unless_said() {
        let config = parse("[[broker.listeners]]\nbind = \"0.0.0.0:1883\"\n[[broker.listeners]]\nbind = \"127.0.0.1:1884\"\n").unwrap();
        let listeners = config.broker.unwrap().listeners;
        assert!(!listeners[0].allow_anonymous && listeners[1].allow_anonymous);
        let config =
            parse("[broker]\nallow_anonymous = true\n[[broker.listeners]]\nbind = \"0.0.0.0:1883\"\n")
                .unwrap();
        assert!(config.broker.unwrap().listeners[0].allow_anonymous);
    }
}
