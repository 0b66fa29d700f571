//! nginx as the web server in front of a WebSocket listener.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use super::address::{GATE, at, own};
use super::process::Process;

/// A running nginx that passes WebSocket connections on.
pub(crate) struct Nginx {
    _process: Process,
    _folder: TempDir,
    /// Where it listens, and from where it connects.
    pub(crate) address: Ipv4Addr,
}

impl Nginx {
    /// Starts one that passes `/mqtt` to `to`, with further lines for the location.
    #[track_caller]
    pub(crate) fn start(to: SocketAddr, lines: &str) -> Self {
        let address = own();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("nginx.conf");
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path temp;"))
            .join(" ");
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; {paths}\n\
             server {{ listen {address}:{GATE}; location /mqtt {{\n\
             proxy_pass http://{to}; proxy_bind {address}; proxy_http_version 1.1; proxy_set_header Host $host;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";\n\
             {lines}\n}} }} }}\n"
        );
        std::fs::write(&file, text).expect("the file is written");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).args(["-e", "stderr", "-c"]).arg(&file);
        let process = Process::start("nginx", &mut command);
        let nginx = Self { _process: process, _folder: folder, address };
        super::eventually("nginx", || TcpStream::connect(nginx.listen()).ok().map(drop));
        nginx
    }

    /// Where it listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        at(self.address, GATE)
    }
}
