//! paho-mqtt, the client that most people's scripts are written with: each one is a Python process.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::json;

use super::driver::Driver;

const SCRIPT: &str = include_str!("paho_client.py");

/// A client.
pub(crate) type Paho = Driver;

impl Paho {
    /// A client that is not connected yet. `protocol` is 3, 4 or 5.
    #[track_caller]
    pub(crate) fn new(clientid: &str, protocol: u8, clean: bool) -> Self {
        Self::over("tcp", clientid, protocol, clean)
    }

    /// The same over `tcp` or `websockets`, at the path `/mqtt`.
    #[track_caller]
    pub(crate) fn over(transport: &str, clientid: &str, protocol: u8, clean: bool) -> Self {
        let mut command = Command::new("python3");
        let (protocol, clean) = (protocol.to_string(), clean.to_string());
        command.args(["-u", "-c", SCRIPT, clientid, &protocol, &clean, transport]);
        Self::process(&format!("paho {clientid}"), &mut command)
    }

    /// A connected client with clean start.
    #[track_caller]
    pub(crate) fn connected(to: SocketAddr, clientid: &str, protocol: u8) -> Self {
        let mut paho = Self::new(clientid, protocol, true);
        let connected = paho.connect(to, &json!({}));
        assert_eq!(connected["reason"], 0, "{connected}");
        paho
    }
}
