//! `tidegate demo`: two brokers and the gateway as child processes of this program, and a fleet of simulated vehicles
//! that come back from ever other addresses and land on the same broker each time.

mod config;
mod fleet;
mod processes;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use api::client::RestClient;
use runtime::clock::Clock;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::interval;

use self::config::Plan;
use self::fleet::{Fleet, Traffic, Vehicles};
use self::processes::Process;
use self::table::{Screen, Summary};

/// How often the table is drawn and the processes are looked at.
const REFRESH: Duration = Duration::from_millis(250);

/// Show it all on this machine: two brokers, the gateway, and a fleet that always finds its broker again
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// End by itself after this time, such as 30s; exit code 0 only if every device stayed on its broker and came back at least once
    #[arg(long, value_name = "TIME", value_parser = time)]
    exit_after: Option<Duration>,
    /// Vehicles
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=500))]
    vehicles: u16,
    /// Port of the gateway
    #[arg(long, default_value_t = 1880, value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: u16,
    /// Port of the broker node1; node2 gets the next one
    #[arg(long, default_value_t = 1883, value_parser = clap::value_parser!(u16).range(1..))]
    broker_port: u16,
    /// Port of node1's API; node2 and the gateway get the next two
    #[arg(long, default_value_t = 18083, value_parser = clap::value_parser!(u16).range(1..))]
    api_port: u16,
    /// Folder for configurations and logs; must not exist [default: one in the system's temporary folder]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Seed of everything that is left to chance; the same seed gives the same fleet
    #[arg(long)]
    seed: Option<u64>,
    /// Run a configuration as a child of the demo.
    #[arg(long, hide = true, requires = "parent")]
    serve: Option<PathBuf>,
    /// The demo's process id.
    #[arg(long, hide = true)]
    parent: Option<i32>,
}

/// `30s`, `5m`, `500ms`, `1h`.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if unit.is_empty() && !number.is_empty() {
        return Err(format!("a unit is missing: {number}s, {number}m, {number}h or {number}ms"));
    }
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let total =
        number.parse().ok().and_then(|number: u64| number.checked_mul(millis)).filter(|total| *total > 0);
    let total = total.filter(|total| *total <= 7 * 24 * 3_600_000);
    total
        .map(Duration::from_millis)
        .ok_or_else(|| "a time of at most a week is expected, such as 30s, 5m or 1h".to_owned())
}

/// Runs the demo to its end.
pub(crate) fn run(args: Args) -> ExitCode {
    if let (Some(file), Some(parent)) = (&args.serve, args.parent) {
        return processes::serve(file, parent);
    }
    // One thread: the children are tied to the thread that starts them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate demo: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(demo(args));
    // A look-up that still waits for its answer is not waited for.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        eprintln!("tidegate demo: {error}");
        ExitCode::FAILURE
    })
}

/// Why the show is over.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// `--exit-after`.
    Time,
    /// SIGINT or SIGTERM, or nobody reads what is printed.
    Asked,
    /// A child ended.
    Failed(String),
}

async fn demo(args: Args) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let plan = args.plan()?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut screen = Screen::new();
    let folder = plan.folder.display();
    let begin = format!(
        "Starting node1, node2 and the gateway; configurations and logs are in {folder} (seed {seed})"
    );
    if screen.say(&begin).is_err() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut children = Children::start(&plan)?;
    let ready = tokio::select! {
        ready = children.ready() => Some(ready),
        () = signals.next() => None,
    };
    match ready {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            // The failure that is told is the first one.
            let _ = children.stop().await;
            return Err(error);
        }
        None => {
            children.stop().await?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let fleet = Arc::new(Fleet::new(usize::from(args.vehicles)));
    let traffic = traffic(&args, &plan, seed)?;
    let vehicles = Vehicles::start(&fleet, &traffic);
    let end = if screen.say(&guide(&plan)).is_err() {
        End::Asked
    } else {
        show(&args, &fleet, &mut screen, &mut children, &mut signals).await
    };
    vehicles.stop().await;
    let stopped = children.stop().await;
    let summary = Summary::of(&fleet.snapshot());
    // If nobody reads it, the exit code still tells.
    let _ = screen.say(&closing(&summary, &end, &plan));
    if let End::Failed(error) = end {
        return Err(error);
    }
    stopped?;
    let good = match end {
        End::Time => summary.kept_its_promise(),
        _ => summary.moved == 0,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn traffic(args: &Args, plan: &Plan, seed: u64) -> Result<Traffic, String> {
    let apis =
        plan.nodes.iter().map(|node| RestClient::new(&node.api_url()).map_err(|error| error.to_string()));
    let (shortest, longest) = (Duration::from_secs(3), Duration::from_secs(9));
    // Short enough to come back at least once before the end.
    let (shortest, longest) = match args.exit_after {
        Some(all) => (shortest.min(all / 6), longest.min(all / 4)),
        None => (shortest, longest),
    };
    Ok(Traffic {
        server: plan.gateway.mqtt,
        apis: apis.collect::<Result<_, _>>()?,
        trip: (shortest, longest),
        seed,
    })
}

/// Shows the fleet until something ends it.
async fn show(
    args: &Args,
    fleet: &Fleet,
    screen: &mut Screen,
    children: &mut Children,
    signals: &mut Signals,
) -> End {
    let clock = Clock::system();
    let began = clock.now();
    let mut ticks = interval(REFRESH);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = signals.next() => return End::Asked,
        }
        let elapsed = clock.now().saturating_duration_since(began);
        let left = args.exit_after.map(|all| all.saturating_sub(elapsed));
        if screen.draw(&fleet.snapshot(), elapsed, left).is_err() {
            return End::Asked;
        }
        if let Some(error) = children.failed() {
            return End::Failed(error);
        }
        if left == Some(Duration::ZERO) {
            return End::Time;
        }
    }
}

/// What to open and how to try it.
fn guide(plan: &Plan) -> String {
    let Plan { nodes: [one, two], gateway, .. } = plan;
    let (bind, api) = (gateway.mqtt, gateway.api_url());
    let (host, port) = (bind.ip(), bind.port());
    format!(
        "
The gateway listens on {bind} and sends each client id to its broker: node1 on {} or
node2 on {}.
  APIs        {} (node1)   {} (node2)   {api} (gateway)
  look        tidegate ctl --api {api} connections list
              tidegate ctl --api {} clients list
              curl -s {api}/api/v1/gateway/connections/vehicle-001
  listen      mosquitto_sub -h {host} -p {port} -t 'fleet/#' -v
  talk        mosquitto_pub -h {host} -p {port} -t fleet/vehicle-001/command -m honk -i you
The two brokers are independent of each other: a subscriber sees the vehicles of the broker it lands on,
which its client id decides (-i NAME); without one the gateway takes the brokers in turn. The brokers take
connections from the gateway only (PROXY protocol).
Ctrl-C ends the demo.
",
        one.mqtt,
        two.mqtt,
        one.api_url(),
        two.api_url(),
        one.api_url(),
    )
}

fn closing(summary: &Summary, end: &End, plan: &Plan) -> String {
    let mut text = format!("\n{summary}\n");
    match end {
        End::Time if summary.kept_its_promise() => {
            text.push_str("Every device stayed on its broker and came back at least once.\n");
        }
        End::Time if summary.not_back > 0 => {
            text.push_str(&format!("Devices that did not come back in this time: {}\n", summary.not_back));
        }
        _ => {}
    }
    if summary.moved > 0 {
        text.push_str(&format!(
            "Devices that were served by another broker than before: {}\n",
            summary.moved
        ));
    }
    text.push_str(&format!("Configurations and logs stay in {}", plan.folder.display()));
    text
}

/// The three processes, in the order in which they are started.
struct Children(Vec<Process>);

impl Children {
    fn start(plan: &Plan) -> Result<Self, String> {
        let roles = plan.nodes.iter().chain([&plan.gateway]);
        // On an error those that run are killed as they are dropped.
        Ok(Self(roles.map(Process::start).collect::<Result<_, _>>()?))
    }

    async fn ready(&mut self) -> Result<(), String> {
        for process in &mut self.0 {
            process.ready().await?;
        }
        Ok(())
    }

    /// Why one of them is gone.
    fn failed(&mut self) -> Option<String> {
        self.0.iter_mut().find_map(|process| {
            let status = process.ended()?;
            Some(process.failed(&format!("ended with {status}")))
        })
    }

    /// Stops all of them, the gateway first, so that it does not see its brokers go.
    async fn stop(self) -> Result<(), String> {
        let mut result = Ok(());
        for process in self.0.into_iter().rev() {
            let stopped = process.stop().await;
            result = result.and(stopped);
        }
        result
    }
}

/// SIGINT, SIGTERM and SIGHUP (a terminal that is closed).
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let all = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = all;
        Ok(Self([signal(interrupt)?, signal(terminate)?, signal(hangup)?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
impl Args {
    fn for_tests() -> Self {
        // Below the range from which the kernel hands out ports.
        Self {
            exit_after: None,
            vehicles: 3,
            gateway_port: 19_480,
            broker_port: 19_483,
            api_port: 19_583,
            dir: None,
            seed: Some(1),
            serve: None,
            parent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "30", "s", "0s", "-1s", "1.5s", "30 s", "9999h", "99999999999999999999s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time("30").unwrap_err(), "a unit is missing: 30s, 30m, 30h or 30ms");
    }

    #[test]
    fn what_it_says_first_fits_a_terminal() {
        let mut args = Args::for_tests();
        (args.gateway_port, args.broker_port, args.api_port) = (65_000, 65_001, 65_003);
        let guide = guide(&args.plan().unwrap());
        let widest = guide.lines().map(str::len).max();
        assert!(widest <= Some(120), "{widest:?}\n{guide}");
    }
}
