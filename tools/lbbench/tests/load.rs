//! The load through the relay to the fake brokers, all of the same program.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_lbbench");
/// Times that a port is tried, a hundredth of a second apart.
const TRIES: u32 = 1_000;

struct Server(Child);

impl Server {
    /// Starts `line` and waits until `port` answers.
    fn start(line: &str, port: u16) -> Self {
        let server = Self(Command::new(PROGRAM).args(line.split(' ')).spawn().unwrap());
        for _ in 0..TRIES {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return server;
            }
            thread::sleep(Duration::from_millis(10)); // sleep: nothing tells when another process listens
        }
        panic!("{line:?} does not listen");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Fake brokers behind a relay, and a question through it.
fn ask(line: &str) -> Value {
    let held: Vec<_> = (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let [one, two, relay] = [0, 1, 2].map(|at: usize| held[at].local_addr().unwrap().port());
    drop(held);
    let _brokers = Server::start(&format!("backend --ports {one},{two} --secs 60"), two);
    let relaying = Server::start(&format!("relay --mqtt --listen {relay} --to {one},{two} --secs 60"), relay);
    let line = format!("{line} --to 127.0.0.1:{relay} --pid {}", relaying.0.id());
    let output = Command::new(PROGRAM).args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_load_says_what_it_did_and_what_the_relay_needed() {
    for (mode, count, cost) in [
        ("storm --conns 200", "conns", "lb_cpu_s_per_10k"),
        ("msgs --conns 4 --window 2 --msgs 2000", "conns", "lb_cpu_s_per_m_msgs"),
        ("bulk --conns 2 --mib 4", "conns", "lb_cpu_s_per_gib"),
        ("idle --conns 20 --hold 0", "conns", "pss_kib_per_conn"),
    ] {
        let told = ask(&format!("load --mode {mode}"));
        assert_eq!(told["errors"], 0, "{told}");
        assert!(told[count].as_u64() > Some(0) && told[cost].as_f64() >= Some(0.0), "{told}");
    }
}

#[test]
fn the_relay_keeps_each_client_on_its_server() {
    let told = ask("sticky --ids 40 --rounds 2");
    assert_eq!((&told["ids_on_one_backend"], &told["failed"]), (&1.0.into(), &0.into()), "{told}");
    assert_eq!(told["backends_seen"], 2, "{told}");
}
