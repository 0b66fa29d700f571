//! Our ketama, modulo and round robin against nginx: the same key or turn goes to the same server, thousands of times.
//!
//! The keys are what nginx takes for `$proxy_protocol_addr`: addresses as text. Some answers of nginx 1.22.1 are
//! pinned here; the live test asks the nginx of this machine, where there is one with its stream module (Debian:
//! `nginx` and `libnginx-mod-stream`).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use api::gateway::GatewayAdmin;
use gateway::balance::{Hash, HashKind, Load, RoundRobin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Broker, Nobody, Running, addresses, device, eventually, hello, soon, whoever};

/// Servers with weights, and which of them is `down`.
const SERVERS: [(u32, bool); 5] = [(1, false), (2, false), (1, true), (5, false), (1, false)];

fn ours(kind: HashKind, servers: &[SocketAddr]) -> Hash {
    let names: Vec<_> = servers.iter().map(ToString::to_string).collect();
    Hash::new(kind, names.iter().zip(SERVERS).map(|(name, (weight, _))| (name.as_str(), weight)))
}

fn choose(hash: &Hash, key: &str) -> usize {
    hash.choose(key.as_bytes(), |index| !SERVERS[index].1).unwrap()
}

/// Addresses of both families, from a fixed seed.
fn keys(count: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut key = |n: usize| match n % 3 {
        0 => IpAddr::from(random.u128(..).to_be_bytes()).to_string(),
        _ => IpAddr::from(random.u32(..).to_be_bytes()).to_string(),
    };
    (0..count).map(&mut key).collect()
}

/// What nginx 1.22.1 answered for the first keys and these servers.
#[test]
fn the_answers_of_nginx_are_pinned() {
    let servers: Vec<SocketAddr> =
        (0..5).map(|n| SocketAddr::from(([127, 0, 0, 10 + n], 28_100 + u16::from(n)))).collect();
    let hash = ours(HashKind::Ketama, &servers);
    let answers: Vec<_> = keys(40).iter().map(|key| choose(&hash, key)).collect();
    assert_eq!(answers, GOLDEN);
}
const GOLDEN: [usize; 40] = [
    3, 3, 4, 1, 3, 1, 1, 3, 1, 3, 4, 3, 3, 1, 4, 4, 0, 3, 0, 1, 3, 1, 3, 3, 4, 1, 3, 3, 3, 1, 3, 3, 3, 3, 3,
    3, 3, 3, 3, 3,
];

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        // It was ours and may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

fn start(folder: &Path, listen: SocketAddr, method: &str, list: &str) -> Option<Nginx> {
    let folder = folder.display();
    let text = format!(
        "load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/log;\n\
         events {{ worker_connections 512; }}\n\
         stream {{ upstream fleet {{ {method}\n{list} }}\n\
         server {{ listen {listen} proxy_protocol; proxy_pass fleet; }} }}\n"
    );
    let file = format!("{folder}/nginx.conf");
    std::fs::write(&file, text).unwrap();
    let child =
        Command::new("nginx").args(["-p", &folder.to_string(), "-c", &file]).stderr(Stdio::null()).spawn();
    child.ok().map(Nginx)
}

/// Where nginx sends a key.
async fn ask(nginx: SocketAddr, brokers: &[Broker], key: &str) -> usize {
    let mut stream = soon(TcpStream::connect(nginx)).await.unwrap();
    let family = if key.contains(':') { "TCP6" } else { "TCP4" };
    let to = if key.contains(':') { "::1" } else { "127.0.0.1" };
    soon(stream.write_all(format!("PROXY {family} {key} {to} 1 2\r\nx").as_bytes())).await.unwrap();
    let (index, mut server) = whoever(brokers).await;
    let mut byte = [0];
    soon(server.read_exact(&mut byte)).await.unwrap();
    index
}

/// An nginx with that method before these brokers, where there is one.
async fn nginx(method: &str, brokers: &[Broker]) -> Option<(Nginx, SocketAddr, tempfile::TempDir)> {
    let mut list = String::new();
    for (server, (weight, down)) in addresses(brokers).iter().zip(SERVERS) {
        let _ = writeln!(list, "server {server} weight={weight}{};", if down { " down" } else { "" });
    }
    nginx_to(method, &list).await
}

/// The same with that list of servers.
async fn nginx_to(method: &str, list: &str) -> Option<(Nginx, SocketAddr, tempfile::TempDir)> {
    if !Path::new(MODULE).exists() {
        eprintln!("no nginx with its stream module here: the pinned answers must do");
        return None;
    }
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let nginx = start(folder.path(), listen, method, list).expect("nginx can be started");
    // It closes a connection without a PROXY header, and no server hears of it.
    eventually(|| std::net::TcpStream::connect(listen).ok()).await;
    Some((nginx, listen, folder))
}

#[tokio::test]
async fn a_cut_over_from_nginx_moves_no_device() {
    for (method, kind) in [
        ("hash $proxy_protocol_addr consistent;", HashKind::Ketama),
        ("hash $proxy_protocol_addr;", HashKind::Modulo),
    ] {
        let brokers = Broker::fleet::<5>().await;
        let Some((_nginx, listen, _folder)) = nginx(method, &brokers).await else { return };
        let hash = ours(kind, &addresses(&brokers));
        for key in keys(2_000) {
            assert_eq!(choose(&hash, &key), ask(listen, &brokers, &key).await, "{kind:?} {key}");
        }
    }
}

#[tokio::test]
async fn turns_by_weight_are_nginxs_turns() {
    let brokers = Broker::fleet::<5>().await;
    let Some((_nginx, listen, _folder)) = nginx("", &brokers).await else { return };
    let loads = SERVERS.map(|(weight, down)| Load { weight, connections: 0, usable: !down });
    let mut turns = RoundRobin::default();
    let keys = keys(300);
    let mut theirs = Vec::new();
    for key in &keys {
        theirs.push(ask(listen, &brokers, key).await);
    }
    let ours: Vec<_> = keys.iter().filter_map(|_| turns.next(&loads)).collect();
    assert_eq!(ours, theirs);
}

/// A whole gateway beside a whole nginx, with a dead server among the living and a backup: the same servers in the same
/// order, from the failures that are paid for to the turns that go on without it.
#[tokio::test]
async fn a_gateway_with_a_dead_server_goes_where_nginx_goes() {
    for max_fails in [1, 2, 3] {
        let (brokers, dead) = (Broker::fleet::<4>().await, Nobody::new());
        let weights = [3, 2, 1, 4];
        // The dead one is the second of them.
        let mut list: Vec<(SocketAddr, u32)> = addresses(&brokers).into_iter().zip(weights).collect();
        list.insert(1, (dead.address, 2));
        let (mut theirs, mut ours) = (String::new(), String::new());
        for (address, weight) in &list {
            let _ = writeln!(
                theirs,
                "server {address} weight={weight} max_fails={max_fails} fail_timeout=3600s;"
            );
            let _ = writeln!(
                ours,
                "{{ address = \"{address}\", weight = {weight}, max_fails = {max_fails}, fail_timeout = \"1h\" }},"
            );
        }
        let Some((_nginx, listen, _folder)) = nginx_to("", &theirs).await else { return };
        let running = Running::start(&format!(
            "[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
             [[gateway.upstreams]]\nname = \"b\"\nbalance = \"round_robin\"\nservers = [\n{ours}]\n"
        ));
        let (mut nginxs, mut gateways) = (Vec::new(), Vec::new());
        for n in 0..100 {
            nginxs.push(ask(listen, &brokers, "10.0.0.1").await);
            let _client = device(running.address(), &hello(&format!("v{n}")).bytes()).await;
            gateways.push(whoever(&brokers).await.0);
        }
        assert_eq!(gateways, nginxs, "max_fails = {max_fails}");
        assert_eq!(running.gateway.upstreams()[0].servers[1].fails, max_fails);
    }
}
