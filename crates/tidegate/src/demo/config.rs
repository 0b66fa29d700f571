//! The demo's plan: which ports, which folder, which configuration files.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Args;

/// A process of the demo.
#[derive(Clone, Debug)]
pub(super) struct Role {
    /// `node1`, `node2` or `gateway`.
    pub(super) name: &'static str,
    /// Where it serves MQTT.
    pub(super) mqtt: SocketAddr,
    /// Where it serves its API.
    pub(super) api: SocketAddr,
    /// Its configuration.
    pub(super) config: PathBuf,
    /// What it says.
    pub(super) log: PathBuf,
}

impl Role {
    pub(super) fn api_url(&self) -> String {
        format!("http://{}", self.api)
    }
}

/// Everything that is started.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) folder: PathBuf,
    pub(super) nodes: [Role; 2],
    pub(super) gateway: Role,
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

/// A port, who it is for, and the option that moves it.
struct Port {
    number: u16,
    what: &'static str,
    option: &'static str,
}

impl Args {
    /// The six ports in the order node1, node2, gateway: MQTT, then API.
    fn ports(&self) -> Result<[Port; 6], String> {
        let after = |first: u16, count: u16, option: &str| {
            let told =
                || format!("{option} {first}: {count} ports above it are needed, and 65535 is the last");
            first.checked_add(count).ok_or_else(told)
        };
        let port = |number, what, option| Port { number, what, option };
        Ok([
            port(self.broker_port, "the broker node1", "--broker-port"),
            port(after(self.broker_port, 1, "--broker-port")?, "the broker node2", "--broker-port"),
            port(self.gateway_port, "the gateway", "--gateway-port"),
            port(self.api_port, "the API of node1", "--api-port"),
            port(after(self.api_port, 1, "--api-port")?, "the API of node2", "--api-port"),
            port(after(self.api_port, 2, "--api-port")?, "the API of the gateway", "--api-port"),
        ])
    }

    /// Checks that every port is free, makes the folder and writes the files into it.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn plan(&self) -> Result<Plan, String> {
        let ports = self.ports()?;
        for (index, port) in ports.iter().enumerate() {
            if let Some(other) = ports.iter().take(index).find(|other| other.number == port.number) {
                let (number, what, option) = (port.number, port.what, port.option);
                return Err(format!(
                    "port {number} cannot be both for {} and for {what}: choose another with {option}",
                    other.what
                ));
            }
            let address = SocketAddr::from((LOOPBACK, port.number));
            if let Err(error) = net::listener::check_free(address) {
                let (number, what, option) = (port.number, port.what, port.option);
                return Err(match error.error.kind() {
                    io::ErrorKind::AddrInUse => format!(
                        "port {number}, meant for {what}, is in use by another process: stop that process, or choose another port with {option}"
                    ),
                    _ => format!("port {number}, meant for {what}: {error}; {option} chooses another"),
                });
            }
        }
        let [node1, node2, gateway, api1, api2, api3] = ports.map(|port| port.number);
        let folder = self.folder()?;
        let role = |name: &'static str, mqtt: u16, api: u16| Role {
            name,
            mqtt: SocketAddr::from((LOOPBACK, mqtt)),
            api: SocketAddr::from((LOOPBACK, api)),
            config: folder.join(format!("{name}.toml")),
            log: folder.join(format!("{name}.log")),
        };
        let plan = Plan {
            nodes: [role("node1", node1, api1), role("node2", node2, api2)],
            gateway: role("gateway", gateway, api3),
            folder: folder.clone(),
        };
        for node in &plan.nodes {
            write(&node.config, &node_file(node))?;
        }
        write(&plan.gateway.config, &gateway_file(&plan))?;
        Ok(plan)
    }

    /// A folder that was not there before, for us alone.
    fn folder(&self) -> Result<PathBuf, String> {
        let create = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        if let Some(path) = &self.dir {
            let told = |error: io::Error| match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    format!("--dir {}: it exists already; the demo wants a fresh folder", path.display())
                }
                _ => format!("--dir {}: cannot create it: {error}", path.display()),
            };
            create(path).map_err(told)?;
            return path.canonicalize().map_err(|error| format!("--dir {}: {error}", path.display()));
        }
        let parent = std::env::temp_dir();
        for number in 0..100 {
            let path = parent.join(format!("tidegate-demo-{}-{number}", std::process::id()));
            match create(&path) {
                Ok(()) => return Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(format!(
                        "cannot create {}: {error}; --dir names another place",
                        path.display()
                    ));
                }
            }
        }
        Err(format!("no free name for a folder in {}; --dir names another place", parent.display()))
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn node_file(node: &Role) -> String {
    let Role { name, mqtt, api, .. } = node;
    format!(
        r#"# A broker of `tidegate demo`. Start it alone with: tidegate run --config {name}.toml

[node]
name = "{name}"
data_dir = "{name}-data"

[engine]
kind = "memory"

[[broker.listeners]]
bind = "{mqtt}"
# The gateway tells the device's real address in a PROXY header; whoever connects without one is refused.
proxy_protocol = true
trusted_proxies = ["127.0.0.0/8"]

[admin]
bind = "{api}"
"#
    )
}

fn gateway_file(plan: &Plan) -> String {
    let Plan { nodes: [one, two], gateway, .. } = plan;
    let (bind, api, first, second) = (gateway.mqtt, gateway.api, one.mqtt, two.mqtt);
    format!(
        r#"# The gateway of `tidegate demo`. Start it alone with: tidegate run --config gateway.toml

[node]
name = "gateway"
data_dir = "gateway-data"

[[gateway.listeners]]
bind = "{bind}"
upstream = "brokers"
mode = "stream"

[[gateway.upstreams]]
name = "brokers"
# The same client id reaches the same server, from whatever address it comes.
balance = "client_id"
hash = "rendezvous"
proxy_protocol = "v2"
servers = [
  {{ name = "node1", address = "{first}" }},
  {{ name = "node2", address = "{second}" }},
]

[admin]
bind = "{api}"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(folder: &Path) -> Args {
        Args { dir: Some(folder.join("demo")), ..Args::for_tests() }
    }

    #[test]
    fn the_files_it_writes_are_right() {
        let folder = tempfile::tempdir().unwrap();
        let plan = args(folder.path()).plan().unwrap();
        for role in plan.nodes.iter().chain([&plan.gateway]) {
            let config = crate::config::load(Some(&role.config)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.node.name, role.name);
            assert_eq!(config.admin.map(|admin| admin.bind), Some(role.api));
            assert!(config.node.data_dir.starts_with(&plan.folder));
        }
    }

    #[test]
    fn a_port_in_use_is_one_sentence_with_its_option() {
        let folder = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let told = Args { gateway_port: port, ..args(folder.path()) }.plan().unwrap_err();
        assert!(told.starts_with(&format!("port {port}, meant for the gateway, is in use")), "{told}");
        assert!(told.ends_with("--gateway-port"), "{told}");
        assert_eq!(told.lines().count(), 1);
    }

    #[test]
    fn ports_must_differ_and_exist() {
        let folder = tempfile::tempdir().unwrap();
        let base = args(folder.path());
        let told = Args { gateway_port: base.broker_port + 1, ..args(folder.path()) }.plan().unwrap_err();
        assert!(told.contains("cannot be both"), "{told}");
        let told = Args { api_port: 65_535, ..args(folder.path()) }.plan().unwrap_err();
        assert!(told.contains("65535 is the last"), "{told}");
    }

    #[test]
    fn a_folder_that_exists_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args { dir: Some(folder.path().to_owned()), ..Args::for_tests() };
        assert!(args.plan().unwrap_err().contains("fresh folder"));
    }
}
