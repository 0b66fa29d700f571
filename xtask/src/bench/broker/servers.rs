//! The brokers that are measured: how each is configured and started.

use super::super::figures::{self, Contestant};
use super::super::process::{self, Launch, Priority, Seat};
use super::super::tools::Bench;

/// A broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broker {
    Tidegate {
        workers: u8,
    },
    Mosquitto,
    Nats,
    /// What sockets alone cost: exact topics, QoS 0, MQTT 3.1.1.
    Null,
}

/// What a row wants of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) seat: Seat,
    pub(super) priority: Priority,
    pub(super) websocket: bool,
    /// 128 messages under way to a client and 10,000 that wait for it: our defaults. Else nobody has a limit below what
    /// the loads' windows allow.
    pub(super) short_queues: bool,
    /// Whether mosquitto sends at once, which it does not by default: where each step waits for an acknowledgement, it
    /// would measure the 40 ms of TCP's delayed one. In the other rows its default costs it less.
    pub(super) no_delay: bool,
}

impl Broker {
    pub(super) fn contestant(self) -> Contestant {
        match self {
            Self::Tidegate { .. } => figures::ours("tidegate"),
            Self::Mosquitto => figures::rival("mosquitto"),
            Self::Nats => figures::peer("nats-server"),
            Self::Null => figures::peer("null server"),
        }
    }

    pub(super) fn launch(self, bench: &Bench, port: u16, setup: Setup) -> Result<Launch, String> {
        let launch = match self {
            Self::Tidegate { workers } => {
                let data = data_folder(bench, "tidegate-data")?;
                let config = bench.file("broker.toml", &tidegate(&data, port, workers, setup))?;
                Launch::new(&bench.tidegate, setup.seat, "run --config").arg(config)
            }
            Self::Mosquitto => {
                let config = bench.file("mosquitto.conf", &mosquitto(port, process::free_port()?, setup))?;
                Launch::new(&bench.mosquitto, setup.seat, "-c").arg(config)
            }
            Self::Nats => {
                let program = bench.nats.as_ref().ok_or("nats-server is not installed")?;
                let store = data_folder(bench, "nats-data")?;
                let own = process::free_port()?;
                let config = format!(
                    "server_name: bench\nlisten: \"127.0.0.1:{own}\"\njetstream {{ store_dir: \"{store}\" }}\n\
                     mqtt {{ listen: \"127.0.0.1:{port}\" }}\n"
                );
                let config = bench.file("nats.conf", &config)?;
                Launch::new(program, setup.seat, "-c").arg(config)
            }
            Self::Null => {
                // Its buffer, in KiB, must hold the largest packet of a row.
                let line = format!("null --mode batch --rbuf 1024 --port {port} --secs 120");
                Launch::new(&bench.mqload, setup.seat, &line)
            }
        };
        Ok(launch.priority(setup.priority))
    }
}

fn tidegate(data: &str, port: u16, workers: u8, setup: Setup) -> String {
    let transport = if setup.websocket { "ws" } else { "tcp" };
    // as mosquitto's: where the windows of the load are the bound, the servers' are none
    let broker = if setup.short_queues { "" } else { "[broker]\nmax_inflight = 65535\n\n" };
    format!(
        "[node]\nname = \"bench\"\ndata_dir = \"{data}\"\nworkers = {workers}\n\n[engine]\nkind = \"memory\"\n\n\
         {broker}[[broker.listeners]]\nbind = \"127.0.0.1:{port}\"\ntransport = \"{transport}\"\n\n[log]\nlevel = \"warn\"\n"
    )
}

/// `second`: another port, because mosquitto 2.0 refuses to run with a listener for WebSocket only.
fn mosquitto(port: u16, second: u16, setup: Setup) -> String {
    let listener = if setup.websocket {
        format!("listener {second} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\n")
    } else {
        format!("listener {port} 127.0.0.1\n")
    };
    // Its limits are raised above what the windows allow, so that it has no reason to lose anything: with its defaults it
    // drops most messages of the QoS 2 row.
    let (inflight, queued) = if setup.short_queues { (128, 10_000) } else { (0, 200_000) };
    let no_delay = setup.no_delay;
    format!(
        "{listener}set_tcp_nodelay {no_delay}\nallow_anonymous true\npersistence false\n\
         max_queued_messages {queued}\nmax_inflight_messages {inflight}\n"
    )
}

/// An empty folder for a server's data.
fn data_folder(bench: &Bench, name: &str) -> Result<String, String> {
    let path = bench.folder.join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gets_the_transport_and_the_limits_that_it_wants() {
        let setup = Setup {
            seat: Seat::Server,
            priority: Priority::Usual,
            websocket: true,
            short_queues: false,
            no_delay: false,
        };
        let text = tidegate("d", 1, 2, setup);
        assert!(
            text.contains("workers = 2") && text.contains("\"ws\"") && text.contains("max_inflight"),
            "{text}"
        );
        assert!(!tidegate("d", 1, 2, Setup { short_queues: true, ..setup }).contains("max_inflight"));
        let text = mosquitto(1, 2, setup);
        assert!(text.contains("websockets") && text.contains("max_inflight_messages 0\n"), "{text}");
        let text = mosquitto(1, 2, Setup { short_queues: true, websocket: false, ..setup });
        assert!(!text.contains("protocol") && text.contains("max_queued_messages 10000\n"), "{text}");
    }
}
