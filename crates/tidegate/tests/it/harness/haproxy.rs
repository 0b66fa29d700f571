//! HAProxy as the balancer in front of the gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tempfile::TempDir;

use super::address::{GATE, at, own};
use super::process::Process;

/// A running HAProxy that passes TCP on.
pub(crate) struct Haproxy {
    _process: Process,
    _folder: TempDir,
    /// Where it listens, and from where it connects.
    pub(crate) address: Ipv4Addr,
}

impl Haproxy {
    /// Starts one that passes everything to `to`, with `option` on its server line (`send-proxy`, `send-proxy-v2`).
    #[track_caller]
    pub(crate) fn start(to: SocketAddr, option: &str) -> Self {
        Self::in_mode("mode tcp", to, option)
    }

    /// The same in another mode, with further lines for `defaults`.
    #[track_caller]
    pub(crate) fn in_mode(mode: &str, to: SocketAddr, option: &str) -> Self {
        let address = own();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("haproxy.cfg");
        let lines = format!(
            "global\n    log stderr format raw local0\n    maxconn 200\n\
             defaults\n    {mode}\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
             listen front\n    bind {address}:{GATE}\n    source {address}\n    server gateway {to} {option}\n"
        );
        std::fs::write(&file, lines).expect("the file is written");
        let process = Process::start("haproxy", Command::new("haproxy").arg("-db").arg("-f").arg(&file));
        let haproxy = Self { _process: process, _folder: folder, address };
        super::eventually("haproxy", || std::net::TcpStream::connect(haproxy.listen()).ok().map(drop));
        haproxy
    }

    /// Where it listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        at(self.address, GATE)
    }
}
