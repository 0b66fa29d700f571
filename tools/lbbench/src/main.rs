//! A small bench for balancers of MQTT. Loopback only; every loop ends by itself; one line of JSON for each run.

mod account;
mod arguments;
mod backend;
mod load;
mod mqtt;
mod relay;
mod sockets;
mod sticky;

const HELP: &str = "lbbench SUBCOMMAND [--key value ...]   (loopback only; one JSON line per run)
 backend --ports 18830,18831 [--proxy none|v1|v2|any] [--stats FILE] [--no-track] [--secs 3600]
 load    --to 127.0.0.1:1883 --mode storm|msgs|bulk|idle [--pid P,..] [--v5]
         storm: --conns 20000 --conc 32 --srcs 8
         msgs:  --conns 100 --window 1 --msgs 500000 --size 64 [--rate R --secs 10] (rate: open loop)
         bulk:  --conns 8 --window 4 --size 65536 --mib 2048 [--echo]
         idle:  --conns 8000 --hold 3
 sticky  --to 127.0.0.1:1883 --ids 2000 --rounds 3 --srcs 16 [--remove CMD --add CMD --settle-ms 1500] [--v5]
 relay   --listen 1884 --to 18830,18831 [--mqtt] [--buf 65536]   minimal L4 relay (own lower bound)
 Common: --cpu N (pin this process)   --label TEXT (copied to the JSON line)";

fn main() {
    let v: Vec<String> = std::env::args().skip(1).collect();
    if v.is_empty() || v[0] == "--help" || v[0] == "help" {
        println!("{HELP}");
        return;
    }
    sockets::install_signals();
    let a = arguments::Args::parse(&v[1..]);
    if a.has("cpu") {
        sockets::pin(a.n("cpu", 1) as usize);
    }
    match v[0].as_str() {
        "backend" => backend::run(&a),
        "load" => load::run(&a),
        "sticky" => sticky::run(&a),
        "relay" => relay::run(&a),
        _ => arguments::die(HELP),
    }
}
