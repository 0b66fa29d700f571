//! The work of another balancer taken over: what `tidegate import` prints serves as the original did.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use mqtt::Version;
use tempfile::TempDir;

use crate::harness::address::{GATE, MQTT, at, own, source};
use crate::harness::nginx_stream::NginxStream;
use crate::harness::process::{Process, run, run_with, text};
use crate::harness::server::tidegate;
use crate::harness::{DEADLINE, Device, Site, Tidegate, device, eventually};

/// The configuration of the article that this product begins with.
const SNIPPET: &str = "stream {
    mqtt_preread on;
    upstream emqx_backend {
        zone tcp_servers 64k;
        hash $mqtt_preread_clientid consistent;
        server 10.0.0.172:1883;
        server 10.0.0.174:1883;
    }
    server {
        listen 1880;
        status_zone tcp_server;
        proxy_pass emqx_backend;
        proxy_buffer_size 4k;
        proxy_protocol on;
    }
}
";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, text).expect("the file is written");
    }
    folder
}

/// Runs `tidegate import` and gives back the TOML and what was said about it.
#[track_caller]
fn import(from: &str, file: &Path) -> (String, String) {
    let output = run(&mut tidegate(&["import", from, file.to_str().expect("text")]));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {err}", output.status);
    (out, err)
}

/// A gateway at its site that does what this file says; `listen` in it stands for the site's own address.
#[track_caller]
fn gateway(from: &str, file: &str, listen: SocketAddr) -> Tidegate {
    let site = Site::new("gateway");
    let folder = folder(&[("other.conf", &file.replace(&listen.to_string(), &site.gate().to_string()))]);
    let (toml, _) = import(from, &folder.path().join("other.conf"));
    site.sections(&toml).start()
}

/// A server that only takes connections.
struct Taker(TcpListener);

impl Taker {
    fn start() -> Self {
        let listener = TcpListener::bind(at(own(), MQTT)).expect("an address of our own");
        listener.set_nonblocking(true).expect("a socket option");
        Self(listener)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("its address")
    }

    fn take(&self) -> Option<TcpStream> {
        let (stream, _) = self.0.accept().ok()?;
        stream.set_nonblocking(false).expect("a socket option");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        Some(stream)
    }
}

/// Which server a device reaches through a balancer.
#[track_caller]
fn reach(takers: &[Taker], balancer: SocketAddr, from: IpAddr, clientid: &str) -> usize {
    let mut device = Device::dial_from(from, balancer);
    device.say_hello(&device::connect(Version::V5, clientid));
    let look = || takers.iter().enumerate().find_map(|(index, taker)| Some((index, taker.take()?)));
    let (index, mut server) = eventually("a server that takes the connection", look);
    server.read_exact(&mut [0]).expect("the first byte of CONNECT");
    index
}

/// The same devices, one after the other, reach the same servers through nginx and through the gateway made of its file.
/// `upstream` has `{}` for the servers' addresses.
#[track_caller]
fn as_nginx(upstream: &str, devices: u32) -> Vec<usize> {
    let takers: Vec<_> = (0..4).map(|_| Taker::start()).collect();
    let mut upstream = upstream.to_owned();
    for taker in &takers {
        upstream = upstream.replacen("{}", &taker.address().to_string(), 1);
    }
    let listen = at(own(), GATE);
    let stream = format!(
        "stream {{ upstream fleet {{ {upstream} }}\nserver {{ listen {listen}; proxy_pass fleet; }} }}\n"
    );
    let gateway = gateway("nginx", &stream, listen);
    let _nginx = NginxStream::start(&stream);
    let mut reached = Vec::new();
    for number in 0..devices {
        let (from, clientid) = (source(number * 977).into(), format!("vehicle-{number}"));
        let before = reach(&takers, listen, from, &clientid);
        let after = reach(&takers, gateway.gate(), from, &clientid);
        assert_eq!(before, after, "device {number} from {from}");
        reached.push(before);
    }
    reached
}

#[test]
fn the_missions_snippet_as_it_stands_is_a_configuration_of_ours() {
    let folder = folder(&[("nginx.conf", SNIPPET)]);
    let (nginx, toml) = (folder.path().join("nginx.conf"), folder.path().join("tidegate.toml"));
    let toml = toml.to_str().expect("text");
    let output =
        run(&mut tidegate(&["import", "nginx", "--strict", "--output", toml, nginx.to_str().expect("text")]));
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.ends_with("1 listener, 1 upstream: the same service (3 not needed)\n"), "{said}");
    assert!(said.contains("nginx.conf:13: proxy_buffer_size 4k: not needed: "), "{said}");
    let check = run(&mut tidegate(&["check", "--config", toml]));
    assert!(check.status.success(), "{}", text(&check.stdout));
}

#[test]
fn the_missions_snippet_keeps_each_device_on_its_broker_and_tells_it_the_devices_address() {
    let brokers: Vec<_> =
        ["emqx1", "emqx2"].map(|name| Site::new(name).broker("", "proxy_protocol = true").start()).into();
    let site = Site::new("gateway");
    let file = SNIPPET
        .replace("listen 1880", &format!("listen {}", site.gate()))
        .replace("10.0.0.172:1883", &brokers[0].mqtt().to_string())
        .replace("10.0.0.174:1883", &brokers[1].mqtt().to_string());
    let folder = folder(&[("nginx.conf", &file)]);
    let (toml, _) = import("nginx", &folder.path().join("nginx.conf"));
    let gateway = site.sections(&toml).start();
    let mut shares = [0, 0];
    for number in 0_u32..24 {
        // nginx's hash is a CRC: ids that differ in their last digits alone stay close together
        let clientid = format!("vehicle-{:08x}", number.wrapping_mul(2_654_435_761));
        let mut homes = Vec::new();
        for address in [source(number), source(number + 1_000)] {
            let connect = device::connect(Version::V5, &clientid);
            let (device, _) = Device::connect_from(address.into(), gateway.gate(), &connect);
            let home =
                brokers.iter().position(|broker| broker.client(&clientid).is_some_and(|c| c.connected));
            let home = home.expect("a broker that has it");
            let peer = brokers[home].client(&clientid).map(|client| client.peer).expect("its address");
            assert_eq!(peer, device.local().to_string());
            homes.push(home);
            device.goodbye();
            gateway.gone(&clientid);
        }
        assert_eq!(homes[0], homes[1], "{clientid}");
        shares[homes[0]] += 1;
    }
    assert!(shares.iter().all(|share| *share > 1), "{shares:?}");
}

#[test]
fn the_header_is_the_one_that_nginx_sends() {
    let takers = [Taker::start(), Taker::start()];
    let listen = at(own(), GATE);
    let file = format!(
        "stream {{ upstream fleet {{ server {}; server {}; }}\n\
         server {{ listen {listen}; proxy_pass fleet; proxy_protocol on; }} }}\n",
        takers[0].address(),
        takers[1].address()
    );
    let gateway = gateway("nginx", &file, listen);
    let _nginx = NginxStream::start(&file);
    for (balancer, name) in [(listen, "nginx"), (gateway.gate(), "tidegate")] {
        let mut device = Device::dial_from(source(7).into(), balancer);
        device.say_hello(&device::connect(Version::V5, "vehicle-7"));
        let mut server = eventually("the connection", || takers.iter().find_map(Taker::take));
        let header = format!(
            "PROXY TCP4 {} {} {} {}\r\n",
            source(7),
            balancer.ip(),
            device.local().port(),
            balancer.port()
        );
        let mut bytes = vec![0; header.len() + 1];
        server.read_exact(&mut bytes).expect("the header and a byte of CONNECT");
        assert_eq!(String::from_utf8_lossy(&bytes), format!("{header}\u{10}"), "{name}");
    }
}

#[test]
fn a_cut_over_from_nginx_moves_no_device_that_is_hashed() {
    let servers = "server {} weight=2; server {}; server {} weight=5; server {} down;";
    for hash in ["hash $remote_addr consistent;", "hash $remote_addr;"] {
        let reached = as_nginx(&format!("{hash} {servers}"), 60);
        assert!((0..3).all(|server| reached.contains(&server)), "{hash} {reached:?}");
        assert!(!reached.contains(&3), "{hash} {reached:?}");
    }
}

#[test]
fn turns_are_those_of_nginx() {
    let reached = as_nginx("server {} weight=3; server {}; server {} weight=2; server {} down;", 18);
    assert_eq!(
        (0..4).map(|n| reached.iter().filter(|one| **one == n).count()).collect::<Vec<_>>(),
        [9, 3, 6, 0]
    );
}

#[test]
fn turns_are_those_of_haproxy_and_an_address_stays_where_it_is() {
    let takers: Vec<_> = (0..3).map(|_| Taker::start()).collect();
    let servers: String = takers
        .iter()
        .enumerate()
        .map(|(number, taker)| format!("    server mq{number} {}\n", taker.address()))
        .collect();
    let listen = at(own(), GATE);
    let file = |balance: &str| {
        format!(
            "global\n    log stderr format raw local0\n    maxconn 200\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
             listen front\n    bind {listen}\n    balance {balance}\n{servers}"
        )
    };
    let turns = gateway("haproxy", &file("roundrobin"), listen);
    let by_address = gateway("haproxy", &file("source"), listen);
    let folder = folder(&[("haproxy.cfg", &file("roundrobin"))]);
    let mut command = std::process::Command::new("haproxy");
    let _haproxy =
        Process::start("haproxy", command.arg("-db").arg("-f").arg(folder.path().join("haproxy.cfg")));
    eventually("haproxy", || TcpStream::connect(listen).ok());
    // that connection took a turn there, and it takes one here
    drop(eventually("the turn", || takers.iter().find_map(Taker::take)));
    reach(&takers, turns.gate(), source(0).into(), "a probe");
    for number in 1..10 {
        let (from, clientid) = (source(number * 977).into(), format!("vehicle-{number}"));
        let before = reach(&takers, listen, from, &clientid);
        assert_eq!(before, reach(&takers, turns.gate(), from, &clientid), "device {number}");
        let home = reach(&takers, by_address.gate(), from, &clientid);
        assert_eq!(home, reach(&takers, by_address.gate(), from, "another device of the same address"));
    }
}

#[test]
fn a_configuration_is_spread_over_files_as_nginx_reads_them() {
    let folder = folder(&[
        ("nginx.conf", "stream {\n  include streams/*.conf;\n  include gone/*.conf;\n}\n"),
        ("streams/1.conf", "include servers.conf;\n"),
        ("streams/2.conf", "server { listen 127.0.0.1:1880; proxy_pass fleet; proxy_upload_rate 1k; }\n"),
        ("streams/.hidden.conf", "this is not nginx"),
        ("servers.conf", "upstream fleet { server 10.0.0.1:1883; server 10.0.0.2:1883; }\n"),
    ]);
    let (toml, said) = import("nginx", &folder.path().join("nginx.conf"));
    assert!(toml.contains("address = \"10.0.0.2:1883\""), "{toml}");
    assert!(said.contains("streams/2.conf:1: proxy_upload_rate 1k: left out: "), "{said}");
    assert!(said.ends_with("1 listener, 1 upstream: 1 left out, 0 different, 0 not needed\n"), "{said}");
}

#[test]
fn a_file_that_is_there_is_replaced_only_where_that_is_asked_for() {
    let folder = folder(&[
        ("nginx.conf", "server { listen 1880; proxy_pass 10.0.0.1:1883; }\n"),
        ("tidegate.toml", "# mine\n"),
    ]);
    let (from, to) = (folder.path().join("nginx.conf"), folder.path().join("tidegate.toml"));
    let import = |more: &[&str]| {
        let names = [from.to_str().expect("text"), "--output", to.to_str().expect("text")];
        let output = run(&mut tidegate(&[&["import", "nginx"][..], &names, more].concat()));
        (output.status.code(), text(&output.stderr), std::fs::read_to_string(&to).expect("the file"))
    };
    let (code, said, kept) = import(&[]);
    assert_eq!((code, &*kept), (Some(1), "# mine\n"), "{said}");
    assert!(said.contains("is there already") && said.contains("--force"), "{said}");
    let (code, said, written) = import(&["--force"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(written.contains("[gateway]"), "{written}");
    std::fs::remove_file(&to).expect("it was there");
    assert_eq!(import(&[]).0, Some(0), "a new file needs no word");
}

#[test]
fn what_cannot_be_carried_over_ends_a_strict_import_and_broken_files_end_any() {
    let import = |arguments: &[&str], input: &str| {
        let arguments = [&["import", "nginx", "-"], arguments].concat();
        let output = run_with(&mut tidegate(&arguments), input.as_bytes());
        (output.status.code().expect("a code"), text(&output.stdout), text(&output.stderr))
    };
    let half = "server { listen 1880; proxy_pass 10.0.0.1:1883;\nproxy_upload_rate 1k; status_zone x; }\nserver { listen 8883 ssl; proxy_pass 10.0.0.1:1883; }";
    let (code, toml, said) = import(&[], half);
    assert_eq!(code, 0, "{said}");
    assert!(toml.contains("\n# standard input:2: proxy_upload_rate 1k: left out: "), "{toml}");
    assert!(said.contains("standard input:3: listen 8883 ssl: left out: TLS"), "{said}");
    assert!(said.contains("status_zone"), "{said}");
    let (code, toml, said) = import(&["--strict", "--quiet"], half);
    assert_eq!((code, &*toml), (1, ""), "{said}");
    assert!(said.contains("proxy_upload_rate") && !said.contains("status_zone"), "{said}");
    let (code, toml, said) = import(&[], "stream {\n server {\n");
    assert_eq!((code, &*toml), (1, ""));
    assert_eq!(
        said,
        "standard input:3: unexpected end of file, expecting \"}\" of the block \"server\" in line 2\n"
    );
    let (code, _, said) = import(&[], "http { }");
    assert_eq!(code, 1);
    assert!(
        said.contains("standard input:1: http: left out") && said.contains("nothing to carry over"),
        "{said}"
    );
    let output = run(&mut tidegate(&["import", "nginx", "/nowhere/nginx.conf"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("cannot read /nowhere/nginx.conf: "));
}
