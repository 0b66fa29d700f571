//! The real `tidegate`: where it lives, what its file says, and what it can be asked.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use api::broker::Client;
use api::client::RestClient;
use api::rest::ConnectionDetail;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::address::{API, GATE, MQTT, at, own};
use super::process::Process;
use super::wait::{eventually, within};
use super::{DEADLINE, http};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");

/// `tidegate` with these arguments, and nothing from the environment that it would listen to.
pub(crate) fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    for name in
        ["TIDEGATE_API", "STATE_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"]
    {
        command.env_remove(name);
    }
    command
}

/// A folder and an address of its own: all that a process needs to live beside any other.
pub(crate) struct Site {
    pub(crate) address: Ipv4Addr,
    folder: TempDir,
    name: String,
    sections: String,
    workers: usize,
}

impl Site {
    /// A site for a node of that name, with two workers and the API on its port.
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { address: own(), folder, name: name.to_owned(), sections: String::new(), workers: 2 }
    }

    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where its broker listens.
    pub(crate) fn mqtt(&self) -> SocketAddr {
        at(self.address, MQTT)
    }

    /// Where its gateway listens.
    pub(crate) fn gate(&self) -> SocketAddr {
        at(self.address, GATE)
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> SocketAddr {
        at(self.address, API)
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }

    /// Another number of workers.
    #[allow(dead_code, reason = "the tests of `it` take two; `soak` varies it")]
    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sections of the test's own.
    pub(crate) fn sections(mut self, sections: &str) -> Self {
        self.sections.push_str(sections);
        self
    }

    /// A broker, with further lines for its section and for its listener.
    pub(crate) fn broker(mut self, section: &str, listener: &str) -> Self {
        let bind = self.mqtt();
        let _ = write!(
            self.sections,
            "[broker]\n{section}\n[[broker.listeners]]\nbind = \"{bind}\"\n{listener}\n"
        );
        self
    }

    /// A gateway with one upstream `brokers` over named servers, with further lines for listener and upstream.
    pub(crate) fn gateway(self, listener: &str, upstream: &str, servers: &[(&str, SocketAddr)]) -> Self {
        let list: Vec<_> = servers
            .iter()
            .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}"))
            .collect();
        self.gateway_to(listener, upstream, &list.join(", "))
    }

    /// The same with the servers as TOML.
    pub(crate) fn gateway_to(mut self, listener: &str, upstream: &str, servers: &str) -> Self {
        let bind = self.gate();
        let _ = write!(
            self.sections,
            "[gateway]\n[[gateway.listeners]]\nbind = \"{bind}\"\nupstream = \"brokers\"\n{listener}\n\
             [[gateway.upstreams]]\nname = \"brokers\"\n{upstream}\nservers = [ {servers} ]\n"
        );
        self
    }

    /// The whole file: what `node` and `admin` need, and these sections.
    pub(crate) fn text(&self, sections: &str) -> String {
        let (name, api, workers) = (&self.name, self.api(), self.workers);
        format!("[node]\nname = \"{name}\"\nworkers = {workers}\n[admin]\nbind = \"{api}\"\n{sections}")
    }

    /// Writes the file with these sections instead.
    pub(crate) fn write(&self, sections: &str) {
        std::fs::write(self.file(), self.text(sections)).expect("the file is written");
    }

    /// `tidegate run` with its file, not yet started.
    pub(crate) fn command(&self) -> Command {
        self.write(&self.sections);
        tidegate(&["run", "--config", self.file().to_str().expect("text")])
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(self) -> Tidegate {
        let mut command = self.command();
        self.start_command(&mut command)
    }

    /// Starts it by a command of the test's own and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_command(self, command: &mut Command) -> Tidegate {
        let process = Process::start(&format!("tidegate {}", self.name), command);
        self.adopt(process)
    }

    #[track_caller]
    pub(crate) fn adopt(self, process: Process) -> Tidegate {
        let rest = RestClient::new(&format!("http://{}", self.api())).expect("a base");
        let mut tidegate = Tidegate { site: self, process, rest };
        let api = tidegate.site.api();
        let ready = within(DEADLINE, || {
            if let Some(status) = tidegate.process.has_ended() {
                panic!("tidegate ended at its start with {status}");
            }
            http::try_ask(api, "GET", "/readyz", &[], "").filter(|answer| answer.status == 200)
        });
        assert!(ready.is_some(), "tidegate is not ready within {DEADLINE:?}");
        tidegate
    }
}

/// A running process of ours.
pub(crate) struct Tidegate {
    pub(crate) site: Site,
    pub(crate) process: Process,
    /// Its API.
    pub(crate) rest: RestClient,
}

impl Tidegate {
    /// A broker that is ready, with its defaults.
    #[track_caller]
    pub(crate) fn broker(name: &str) -> Self {
        Site::new(name).broker("", "").start()
    }

    pub(crate) fn mqtt(&self) -> SocketAddr {
        self.site.mqtt()
    }

    pub(crate) fn gate(&self) -> SocketAddr {
        self.site.gate()
    }

    pub(crate) fn api(&self) -> SocketAddr {
        self.site.api()
    }

    /// Its configuration file, as messages name it.
    pub(crate) fn file(&self) -> String {
        self.site.file().display().to_string()
    }

    /// A client of the broker, if it knows it.
    #[track_caller]
    pub(crate) fn client(&self, clientid: &str) -> Option<Client> {
        self.rest.client(clientid).expect("an answer")
    }

    /// A client of the broker, as soon as it looks like this.
    #[track_caller]
    pub(crate) fn client_when(&self, clientid: &str, fits: impl Fn(&Client) -> bool) -> Client {
        eventually(&format!("client {clientid}"), || self.client(clientid).filter(&fits))
    }

    /// The newest connection of a client through the gateway, as soon as it is there.
    #[track_caller]
    pub(crate) fn connection(&self, clientid: &str) -> ConnectionDetail {
        eventually(&format!("connection of {clientid}"), || {
            self.rest.connection(clientid).expect("an answer")
        })
    }

    /// Waits until a client has no connection through the gateway.
    #[track_caller]
    pub(crate) fn gone(&self, clientid: &str) {
        eventually(&format!("the end of the connection of {clientid}"), || {
            self.rest.connection(clientid).expect("an answer").is_none().then_some(())
        });
    }

    /// Events of a type so far, oldest first.
    #[track_caller]
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        let page = self.rest.events(None, Some(kind), 10_000).expect("an answer");
        page.data.into_iter().map(|record| record.event).collect()
    }

    /// The first event of a type that fits, as soon as it is there.
    #[track_caller]
    pub(crate) fn event(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("an event {kind}"), || self.events(kind).into_iter().find(&fits))
    }

    /// The value of a metric with its labels as written, such as `tidegate_events_total{type="client_connected"}`.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = http::get(self.api(), "/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no {series} in:\n{text}"));
        value.parse().expect("a number")
    }

    /// Runs `tidegate ctl` against it and gives back what it prints.
    #[track_caller]
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let base = format!("http://{}", self.api());
        let output = super::process::run(&mut tidegate(&[&["ctl", "--api", &base], arguments].concat()));
        let (out, err) = (super::process::text(&output.stdout), super::process::text(&output.stderr));
        assert!(output.status.success(), "ctl {arguments:?}: {}\n{out}{err}", output.status);
        out
    }

    /// Asks for a stop and waits for it; the status.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.end()
    }
}
