//! The flags of `tidegate bench`.

use std::time::Duration;

use mqtt::QoS;

use super::generator::Traffic;
use super::plan::{Plan, Shape};
use super::target::TargetArgs;
use super::traffic::SMALLEST;
use crate::connection::qos;

/// Put load on a broker or a gateway of any make, and measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub(super) bench: Bench,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub(super) enum Bench {
    /// Connect many clients and hold them
    Conn(ConnArgs),
    /// Pairs: each publisher has a topic and a subscriber of its own
    Pubsub(PubsubArgs),
    /// Few publishers, one topic, many subscribers
    Fanout(FanoutArgs),
    /// Many publishers, each with a topic, and few subscribers who hear all of them or share them
    Fanin(FaninArgs),
    /// Does a client come back to its server? Connects through a balancer, asks the servers who is where
    Sticky(StickyArgs),
}

/// Flags of `sticky`.
#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct StickyArgs {
    /// A server behind the balancer, as HOST:PORT, to be asked directly; give each of them
    #[arg(long, value_name = "HOST:PORT", required = true)]
    pub(super) server: Vec<String>,
    /// Clients
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) clients: u32,
    /// Connections of each client, one after the other, each from another address where there are several
    #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub(super) visits: u32,
    /// Connections that may be on their way at once
    #[arg(long = "inflight", value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) at_once: u16,
    /// Client ids and addresses come from this number [default: another one each time, and printed]
    #[arg(long)]
    pub(super) seed: Option<u64>,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Flags of every bench.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CommonArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Threads of the generator [default: one per core]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
    /// Print one JSON document instead of a table
    #[arg(long)]
    pub(super) json: bool,
    /// No progress lines on standard error
    #[arg(long)]
    pub(super) quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct ConnArgs {
    /// Clients to connect
    #[arg(short, long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) clients: u32,
    /// Connections to begin per second, by the clock [default: as fast as --inflight lets]
    #[arg(short = 'R', long, value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// Connections that may be on their way at once [default: 100, with -R 10000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) inflight: Option<u32>,
    /// How long all are held once they are connected, as 30s or 5m
    #[arg(short, long, default_value = "10s", value_parser = duration)]
    pub(super) duration: Duration,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

/// Flags of the benches that send messages.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TrafficArgs {
    /// Quality of service of messages and subscriptions
    #[arg(short, long, default_value = "0", value_parser = qos)]
    qos: QoS,
    /// Topic, with %i for the publisher's number and %r for the run's
    #[arg(short, long, default_value = "tidegate/bench/%r/%i", allow_hyphen_values = true)]
    topic: String,
    /// Bytes of a payload, as 64 or 4KiB; at least 24
    #[arg(short, long, default_value = "64", value_parser = size)]
    size: usize,
    /// Make the messages retained ones; they stay at the server
    #[arg(short, long)]
    retain: bool,
    /// Messages per second over all publishers, by the clock [default: a closed loop, as fast as it goes]
    #[arg(short = 'R', long, value_parser = rate)]
    rate: Option<f64>,
    /// Messages over all publishers; the run ends when they are sent or the duration is over
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long is measured, as 30s or 5m
    #[arg(short, long, default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long is sent before the measuring begins [default: 1s, with -n 0s]
    #[arg(long, value_parser = duration)]
    warmup: Option<Duration>,
    /// QoS 1 and 2 messages of a publisher that may wait for their acknowledgement; Mosquitto closes above 20 of QoS 2
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    inflight: u16,
    /// In a closed loop: messages of a publisher that its subscribers may not have got yet
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    window: u64,
    #[command(flatten)]
    pub(super) common: CommonArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct PubsubArgs {
    /// Pairs of a publisher and a subscriber
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct FanoutArgs {
    /// Subscribers
    #[arg(short, long = "subscribers", visible_alias = "clients", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,
    /// Publishers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    publishers: u32,
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct FaninArgs {
    /// Publishers
    #[arg(short, long = "publishers", visible_alias = "clients", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,
    /// Subscribers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    subscribers: u32,
    /// The subscribers share the messages as this group ($share/GROUP/...)
    #[arg(long, value_name = "GROUP")]
    share: Option<String>,
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
}

impl ConnArgs {
    fn at_once(&self) -> usize {
        let usual = if self.rate.is_some() { AT_ONCE_BY_RATE } else { AT_ONCE };
        self.inflight.unwrap_or(usual) as usize
    }
}

impl TrafficArgs {
    fn traffic(
        &self,
        shape: Shape,
        publishers: u32,
        subscribers: u32,
        share: Option<String>,
        run: u32,
    ) -> Traffic {
        let topic = self.topic.clone();
        Traffic {
            plan: Plan { shape, publishers, subscribers, share, topic, run },
            qos: self.qos,
            retain: self.retain,
            size: self.size,
            rate: self.rate,
            count: self.count,
            warmup: self.warmup.unwrap_or_else(|| Duration::from_secs(u64::from(self.count.is_none()))),
            duration: self.duration,
            inflight: self.inflight,
            window: self.window,
        }
    }
}

/// A bench that the flags describe.
pub(super) struct Wanted<'a> {
    pub(super) name: &'static str,
    pub(super) common: &'a CommonArgs,
    /// Nothing: `conn`.
    pub(super) traffic: Option<Traffic>,
    /// Clients of `conn`.
    pub(super) clients: u32,
    pub(super) connect_rate: Option<f64>,
    /// Connections on their way at once, over all threads.
    pub(super) at_once: usize,
    /// How long `conn` holds.
    pub(super) hold: Duration,
}

/// Connections on their way at once where nobody asks for a rate.
const AT_ONCE: u32 = 100;

/// ... and where the clock says when each begins.
const AT_ONCE_BY_RATE: u32 = 10_000;

impl Bench {
    /// Puts the flags together. `run` tells this run's topics and client ids from others'.
    ///
    /// # Errors
    /// It is `sticky`, which puts no load on anything: its own flags.
    pub(super) fn wanted(&self, run: u32) -> Result<Wanted<'_>, &StickyArgs> {
        Ok(match self {
            Self::Sticky(args) => return Err(args),
            Self::Conn(args) => Wanted {
                name: "conn",
                common: &args.common,
                traffic: None,
                clients: args.clients,
                connect_rate: args.rate,
                at_once: args.at_once(),
                hold: args.duration,
            },
            Self::Pubsub(args) => {
                let traffic = args.traffic.traffic(Shape::Pairs, args.clients, args.clients, None, run);
                Wanted::with("pubsub", &args.traffic.common, traffic)
            }
            Self::Fanout(args) => {
                let traffic = args.traffic.traffic(Shape::FanOut, args.publishers, args.clients, None, run);
                Wanted::with("fanout", &args.traffic.common, traffic)
            }
            Self::Fanin(args) => {
                let share = args.share.clone();
                let traffic = args.traffic.traffic(Shape::FanIn, args.clients, args.subscribers, share, run);
                Wanted::with("fanin", &args.traffic.common, traffic)
            }
        })
    }
}

impl<'a> Wanted<'a> {
    fn with(name: &'static str, common: &'a CommonArgs, traffic: Traffic) -> Self {
        Self {
            name,
            common,
            traffic: Some(traffic),
            clients: 0,
            connect_rate: None,
            at_once: AT_ONCE as usize,
            hold: Duration::ZERO,
        }
    }
}

/// `30s`, `1m30s`, `500ms`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 3600);
    let seconds = || text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = runtime::config::parse_duration(text).or_else(seconds);
    duration
        .filter(|duration| *duration <= day)
        .ok_or_else(|| "allowed: 0s to 1d, as 500ms, 30s or 1m30s".to_owned())
}

/// `64`, `64B`, `4KiB`.
fn size(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().or_else(|| runtime::config::parse_size(text));
    bytes
        .and_then(|bytes: u64| usize::try_from(bytes).ok())
        .filter(|bytes| (SMALLEST..=64 << 20).contains(bytes))
        .ok_or_else(|| format!("allowed: {SMALLEST} bytes, which the stamp takes, to 64MiB"))
}

/// A number per second, as `2000`, `0.5` or `2000/s`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number
        .filter(|rate: &f64| (0.001..=1e8).contains(rate))
        .ok_or_else(|| "allowed: 0.001 to 100000000 per second, as 2000 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_units_and_bounds() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert!(duration("2d").is_err() && duration("-1").is_err() && duration("soon").is_err());
        assert_eq!((size("24"), size("4KiB")), (Ok(24), Ok(4096)));
        assert!(size("23").is_err() && size("65MiB").is_err() && size("").is_err());
        assert_eq!((rate("2000"), rate("2000/s"), rate("0.5")), (Ok(2000.0), Ok(2000.0), Ok(0.5)));
        assert!(rate("0").is_err() && rate("NaN").is_err() && rate("-3").is_err() && rate("inf").is_err());
    }
}
