//! The load against the null server of the same program: what it sends comes back, and it says so.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mqload");
/// Times that a port is tried, a hundredth of a second apart.
const TRIES: u32 = 1_000;

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let line = ["null", "--secs", "60", "--port", &port.to_string()].map(str::to_owned);
        let child = Command::new(PROGRAM).args(line).spawn().unwrap();
        let server = Self { child, port };
        for _ in 0..TRIES {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return server;
            }
            thread::sleep(Duration::from_millis(10)); // sleep: nothing tells when another process listens
        }
        panic!("the null server does not listen");
    }

    fn load(&self, line: &str) -> String {
        let line = format!("{line} --port {} --pid {}", self.port, self.child.id());
        let output = Command::new(PROGRAM).args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn what_is_published_is_delivered_and_counted() {
    let server = Server::start();
    let told = server.load("pubsub --pubs 2 --subs 2 --topics 2 --msgs 2000 --secs 20 --window 64");
    for expected in ["\"lost\":0", "\"order_viol\":0", "\"dups\":0", "\"delivered\":2000", "\"cpu_s_per_M\":"]
    {
        assert!(told.contains(expected), "{expected} in {told}");
    }
}

#[test]
fn connections_are_held_and_their_memory_is_told() {
    let told = Server::start().load("idle --n 50 --hold 0.1");
    for expected in ["\"connected\":50", "\"failed\":0", "\"still_open\":50", "\"rss_bytes_per_conn\":"] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
}
