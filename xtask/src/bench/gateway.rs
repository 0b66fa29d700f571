//! The gateway suite: each row is a load of `lbbench` through a balancer that was started for it alone, before four
//! fake brokers. Ours chooses by client id in every row; so does the relay that is the floor.

use std::time::Duration;

use serde_json::Value;

use super::figures::{self, Bar, Measured, Row, Table};
use super::idle;
use super::process::{self, Launch, Priority, Quiet, Seat, Server};
use super::tools::Bench;
use super::{LATENCY_NOISE, Wishes, in_turns};

/// Fake brokers, all in one process.
pub(super) const SERVERS: usize = 4;

/// What is measured in a row.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// A load of the instrument, and where its number is in the answer.
    Lbbench { args: &'static str, field: &'static str },
    /// Memory for each idle connection.
    Idle,
}

struct Scenario {
    row: Row,
    load: Load,
    /// Whether the balancer tells the device's address in a PROXY header.
    proxy: bool,
    /// At a fixed moderate rate it is the latency that counts; the same without a balancer then says what is added.
    paced: bool,
}

fn scenarios() -> Vec<Scenario> {
    let plain = |name, what, unit, args, field| Scenario {
        row: Row::new(name, what, unit),
        load: Load::Lbbench { args, field },
        proxy: false,
        paced: false,
    };
    let storm = |name, what, proxy| Scenario {
        proxy,
        ..plain(name, what, "CPU-s per 10,000", "--mode storm --conns 6000 --conc 32", "/lb_cpu_s_per_10k")
    };
    let messages = |name, what, args| plain(name, what, "CPU-s per million", args, "/lb_cpu_s_per_m_msgs");
    let barred =
        |scenario: Scenario, bars| Scenario { row: scenario.row.clone().with_bars(bars), ..scenario };
    vec![
        barred(storm("storm", "connects", false), &[Bar::Times(1.0, "nginx")]),
        storm("storm_proxy", "connects, PROXY header out", true),
        barred(
            messages(
                "window1",
                "messages, window 1",
                "--mode msgs --conns 100 --window 1 --size 64 --msgs 100000",
            ),
            &[Bar::Times(1.0, "nginx")],
        ),
        messages(
            "window16",
            "messages, window 16",
            "--mode msgs --conns 100 --window 16 --size 64 --msgs 300000",
        ),
        Scenario {
            row: Row::new("rate4k", "p99 at 4,000/s", "µs").with_noise(LATENCY_NOISE),
            load: Load::Lbbench {
                args: "--mode msgs --conns 100 --rate 4000 --secs 1 --size 64",
                field: "/latency/p99_us",
            },
            proxy: false,
            paced: true,
        },
        barred(
            plain("bulk", "bulk", "CPU-s per GiB", "--mode bulk --conns 8 --mib 1024", "/lb_cpu_s_per_gib"),
            &[Bar::Times(1.1, "relay")],
        ),
        Scenario {
            row: Row::new("idle", "idle connection", "KiB").with_bars(&[Bar::AtMost(1.0)]),
            load: Load::Idle,
            proxy: false,
            paced: false,
        },
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Balancer {
    Tidegate,
    Haproxy,
    /// HAProxy with a stick table on the client id: the same service as ours, for more than its plain form costs.
    HaproxySticky,
    Nginx,
    Relay,
    /// None at all.
    Direct,
}

const BALANCERS: [(Balancer, &str); 6] = [
    (Balancer::Tidegate, "tidegate"),
    (Balancer::Haproxy, "HAProxy"),
    (Balancer::HaproxySticky, "HAProxy by client id"),
    (Balancer::Nginx, "nginx"),
    (Balancer::Relay, "relay"),
    (Balancer::Direct, "no balancer"),
];

/// Four fake brokers: one port each, one process.
pub(super) struct Backend {
    _server: Server,
    pub(super) ports: Vec<u16>,
}

impl Backend {
    /// `proxy`: whether every connection must begin with a PROXY header.
    pub(super) fn start(bench: &Bench, proxy: bool, paced: bool) -> Result<Self, String> {
        let ports = (0..SERVERS).map(|_| process::free_port()).collect::<Result<Vec<_>, _>>()?;
        let list: Vec<_> = ports.iter().map(u16::to_string).collect();
        let proxy = if proxy { "any" } else { "none" };
        let line = format!("backend --ports {} --proxy {proxy} --secs 300", list.join(","));
        let launch = Launch::new(&bench.lbbench, Seat::Load, &line).priority(priority(paced));
        Ok(Self { _server: Server::start(&launch, &bench.folder, ports[SERVERS - 1])?, ports })
    }
}

const fn priority(paced: bool) -> Priority {
    if paced { Priority::RealTime } else { Priority::Usual }
}

/// The suite's table with all rows and no number.
pub(super) fn table() -> Table {
    let contestants = BALANCERS.map(|(balancer, name)| match balancer {
        Balancer::Tidegate => figures::ours(name),
        Balancer::Haproxy => figures::rival(name),
        Balancer::Direct => figures::nothing(name),
        _ => figures::peer(name),
    });
    let mut table = Table::new("Gateways", contestants.to_vec());
    table.rows = scenarios().into_iter().map(|scenario| scenario.row).collect();
    table
}

/// Runs the suite.
pub(super) fn measure(bench: &Bench, wishes: &Wishes) -> Table {
    let mut table = table();
    let scenarios = scenarios();
    let groups: Vec<_> = scenarios.iter().map(|scenario| vec![scenario.row.clone()]).collect();
    in_turns(&mut table, &groups, wishes, |row, contestant| {
        let (scenario, (balancer, _)) = (&scenarios[row], BALANCERS[contestant]);
        let able = match balancer {
            Balancer::Direct => scenario.paced,
            Balancer::Relay => !scenario.proxy,
            _ => true,
        };
        able.then(|| once(bench, wishes, scenario, balancer))
    });
    table
}

fn once(
    bench: &Bench,
    wishes: &Wishes,
    scenario: &Scenario,
    balancer: Balancer,
) -> Result<Vec<Measured>, String> {
    let _quiet = Quiet::wait()?;
    let backend = Backend::start(bench, scenario.proxy, scenario.paced)?;
    if balancer == Balancer::Direct {
        return load(bench, wishes, scenario, backend.ports[0], 0);
    }
    let port = process::free_port()?;
    let launch =
        balancer.launch(bench, port, &backend.ports, scenario.proxy)?.priority(priority(scenario.paced));
    let mut server = Server::start(&launch, &bench.folder, port)?;
    let measured = load(bench, wishes, scenario, port, server.pid())?;
    server.check_alive()?;
    Ok(measured)
}

/// `pid` 0: nobody's CPU time.
fn load(
    bench: &Bench,
    wishes: &Wishes,
    scenario: &Scenario,
    port: u16,
    pid: u32,
) -> Result<Vec<Measured>, String> {
    match scenario.load {
        Load::Idle => {
            let value = idle::bytes_per_connection(port, pid)? / 1_024.0;
            Ok(vec![Measured { value, faults: Vec::new() }])
        }
        Load::Lbbench { args, field } => {
            let launch = Launch::new(&bench.lbbench, Seat::Load, "load")
                .priority(priority(scenario.paced))
                .args(args)
                .args(&format!("--to 127.0.0.1:{port} --pid {pid}"));
            figures::best_of(if scenario.paced { wishes.tries } else { 1 }, || {
                Ok(vec![read(&process::ask(&launch, &bench.folder, Duration::from_secs(90))?, field)?])
            })
        }
    }
}

fn read(answer: &Value, field: &str) -> Result<Measured, String> {
    let value = answer.pointer(field).and_then(Value::as_f64);
    let value = value.ok_or_else(|| format!("lbbench did not tell {field}"))?;
    let errors = answer["errors"].as_u64().unwrap_or(0);
    let faults = if errors == 0 { Vec::new() } else { vec![format!("{errors} connections failed")] };
    Ok(Measured { value, faults })
}

impl Balancer {
    fn launch(self, bench: &Bench, port: u16, servers: &[u16], proxy: bool) -> Result<Launch, String> {
        Ok(match self {
            Self::Tidegate => {
                let config = bench
                    .file("gateway.toml", &tidegate_config(bench, port, servers, "rendezvous", proxy))?;
                Launch::new(&bench.tidegate, Seat::Server, "run --config").arg(config)
            }
            Self::Haproxy | Self::HaproxySticky => {
                let text = haproxy_config(port, servers, self == Self::HaproxySticky, proxy);
                let config = bench.file("haproxy.cfg", &text)?;
                Launch::new(&bench.haproxy, Seat::Server, "-db -f").arg(config)
            }
            Self::Nginx => {
                let config = bench.file("nginx.conf", &nginx_config(bench, port, servers, proxy))?;
                Launch::new(&bench.nginx, Seat::Server, "-c").arg(config)
            }
            Self::Relay | Self::Direct => {
                let list: Vec<_> = servers.iter().map(u16::to_string).collect();
                let line = format!("relay --mqtt --listen {port} --to {} --secs 300", list.join(","));
                Launch::new(&bench.lbbench, Seat::Server, &line)
            }
        })
    }
}

/// Our configuration, without an API.
pub(super) fn tidegate_config(bench: &Bench, port: u16, servers: &[u16], hash: &str, proxy: bool) -> String {
    let data = bench.folder.join("gateway-data");
    let servers: Vec<_> =
        servers.iter().map(|port| format!("{{ address = \"127.0.0.1:{port}\" }}")).collect();
    format!(
        "[node]\nname = \"bench\"\ndata_dir = \"{}\"\nworkers = 1\n\n\
         [[gateway.listeners]]\nbind = \"127.0.0.1:{port}\"\nupstream = \"brokers\"\n\n\
         [[gateway.upstreams]]\nname = \"brokers\"\nbalance = \"client_id\"\nhash = \"{hash}\"\n\
         proxy_protocol = \"{}\"\nservers = [{}]\n\n[log]\nlevel = \"warn\"\n",
        data.display(),
        if proxy { "v2" } else { "off" },
        servers.join(", ")
    )
}

fn haproxy_config(port: u16, servers: &[u16], by_client_id: bool, proxy: bool) -> String {
    let choice = if by_client_id {
        "tcp-request inspect-delay 5s\n  tcp-request content reject unless { req.payload(0,0),mqtt_is_valid }\n  \
         stick-table type string len 40 size 400k expire 30m\n  \
         stick on req.payload(0,0),mqtt_field_value(connect,client_identifier)\n  balance leastconn"
    } else {
        "balance source\n  hash-type consistent"
    };
    let proxy = if proxy { " send-proxy-v2" } else { "" };
    let servers = servers.iter().enumerate();
    let servers: String =
        servers.map(|(at, port)| format!("  server s{at} 127.0.0.1:{port}{proxy}\n")).collect();
    format!(
        "global\n  maxconn 9800\n  ulimit-n 20000\n  nbthread 1\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  \
         option tcp-smart-accept\n\
         listen mqtt\n  bind 127.0.0.1:{port} backlog 4096\n  {choice}\n{servers}"
    )
}

fn nginx_config(bench: &Bench, port: u16, servers: &[u16], proxy: bool) -> String {
    let folder = bench.folder.display();
    let servers: Vec<_> =
        servers.iter().map(|port| format!("server 127.0.0.1:{port} max_fails=0;")).collect();
    let proxy = if proxy { "on" } else { "off" };
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {folder}/nginx.pid; \
         error_log {folder}/nginx.err warn;\n\
         events {{ worker_connections 19000; }}\n\
         stream {{\n  upstream be {{ hash $remote_addr consistent; {} }}\n  \
         proxy_timeout 1h; tcp_nodelay on; proxy_protocol {proxy};\n  \
         server {{ listen 127.0.0.1:{port} backlog=4096; proxy_pass be; }}\n}}\n",
        servers.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_gives_its_number_wherever_it_stands() {
        let answer = json!({ "errors": 0, "latency": { "p99_us": 7.5 } });
        assert_eq!(read(&answer, "/latency/p99_us").unwrap(), Measured::of(7.5));
        assert!(read(&answer, "/lb_cpu_s").is_err());
        let answer = json!({ "errors": 2, "lb_cpu_s": 1.0 });
        assert_eq!(read(&answer, "/lb_cpu_s").unwrap().faults, ["2 connections failed"]);
    }

    #[test]
    fn haproxy_gets_its_stick_table_only_where_it_chooses_by_client_id() {
        let plain = haproxy_config(1, &[2, 3], false, false);
        assert!(
            plain.contains("balance source") && !plain.contains("stick") && !plain.contains("send-proxy")
        );
        let sticky = haproxy_config(1, &[2, 3], true, true);
        assert!(sticky.contains("stick on") && sticky.contains("server s1 127.0.0.1:3 send-proxy-v2\n"));
    }
}
