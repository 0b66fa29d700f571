//! A real Mosquitto for one test: own port, own folder, ended by its process id.

#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a Mosquitto may take to say that it runs, and how long any one thing in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running Mosquitto; it ends with this value.
pub struct Mosquitto {
    child: Child,
    folder: tempfile::TempDir,
    pub port: u16,
}

impl Mosquitto {
    /// Starts one on a free port of 127.0.0.1 that lets everybody in.
    pub fn start() -> Self {
        Self::start_with("allow_anonymous true\n")
    }

    /// Starts one with these lines in its configuration.
    pub fn start_with(lines: &str) -> Self {
        // Another process may take the port between our look and Mosquitto's bind; then another port is tried.
        for _ in 0..10 {
            let port = free_port();
            if let Some(broker) = Self::try_start(port, lines) {
                return broker;
            }
        }
        panic!("mosquitto did not start on any of ten ports; is the package `mosquitto` installed?");
    }

    /// Starts another one on the same port, after this one has ended.
    pub fn restart(mut self) -> Self {
        self.kill();
        let port = self.port;
        for _ in 0..50 {
            if let Some(broker) = Self::try_start(port, "allow_anonymous true\n") {
                return broker;
            }
        }
        panic!("mosquitto did not start again on port {port}");
    }

    fn try_start(port: u16, lines: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nset_tcp_nodelay true\nmax_queued_messages 0\n{lines}");
        std::fs::write(&file, text).expect("the configuration is written");
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists())
            .unwrap_or("mosquitto");
        let mut child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program mosquitto is needed: apt-get install mosquitto");
        let log = child.stderr.take().expect("its log");
        let (running, answer) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            // Read to the end, so that the broker never blocks on a full pipe.
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains("running") {
                    let _ = running.try_send(());
                }
            }
        });
        let broker = Self { child, folder, port };
        answer.recv_timeout(PATIENCE).ok().map(|()| broker)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nothing listens on at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    listener.local_addr().expect("its address").port()
}
