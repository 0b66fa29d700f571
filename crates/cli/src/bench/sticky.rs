//! `tidegate bench sticky`: does a client come back to its server through this balancer?
//!
//! The servers are asked, not the balancer, and in a way that any MQTT broker answers: in each visit all clients subscribe to one
//! topic through the balancer, then a probe publishes on each server directly, and a client hears the one that serves it.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Event, EventStream, Goodbye, Message, Options, Subscription};
use mqtt::QoS;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::args::StickyArgs;
use super::progress::Progress;
use super::report::{grouped, row};
use super::stickiness::{Landing, StickyReport, Visits};
use super::target::address;

/// How long a client may wait for the word of its server.
const LOCATED_WITHIN: Duration = Duration::from_secs(5);

/// After the last answer: time for a second server to be heard, if the servers share messages.
const SECOND_ANSWER: Duration = Duration::from_millis(200);

/// How many moved clients a table names.
const NAMED: usize = 10;

/// Runs `tidegate bench sticky`: exit status 0 if every client came back to its server each time.
pub(super) fn run(args: &StickyArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let report = runtime
        .map_err(|error| format!("cannot start: {error}"))
        .and_then(|runtime| runtime.block_on(visits(args)));
    match report {
        Ok(report) => crate::answer::report(&report, args.common.json, || table(&report), report.passed),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What all visits have in common.
struct Journey {
    options: Options,
    prefix: String,
    topic: String,
    sources: Vec<IpAddr>,
    /// The gateway is on loopback and nobody named addresses: all of 127.0.0.0/8 is ours.
    loopback: bool,
    random: fastrand::Rng,
}

async fn visits(args: &StickyArgs) -> Result<StickyReport, String> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut random = fastrand::Rng::with_seed(seed);
    let run = random.u32(..);
    let target = args.common.target.target(run)?;
    let gateway = target.server(0);
    let (username, password) = args.common.target.credentials();
    let options = Options {
        version: target.version,
        username,
        password,
        keep_alive: target.keep_alive,
        websocket_path: target.websocket.then(|| crate::connection::WEBSOCKET_PATH.to_owned()),
        close_timeout: Duration::from_secs(2),
        ..Options::new(gateway.to_string(), "")
    };
    let sources = args.common.target.bind.clone().map(|sources| sources.0).unwrap_or_default();
    let loopback = sources.is_empty() && matches!(gateway.ip(), IpAddr::V4(ip) if ip.is_loopback());
    let mut journey = Journey {
        options,
        prefix: target.id_prefix.clone(),
        topic: format!("tidegate/bench/{run:08x}/where"),
        sources,
        loopback,
        random,
    };
    let mut progress = Progress::new(!args.common.quiet);
    let probes = journey.probes(&args.server).await?;
    let ids = (0..args.clients).map(|number| format!("{}{number}", journey.prefix));
    let mut clients: Vec<(String, Vec<Landing>)> = ids.map(|id| (id, Vec::new())).collect();
    let mut interrupted = false;
    for visit in 0..args.visits {
        progress.show(&format!("visit {} of {}", visit + 1, args.visits));
        tokio::select! {
            landings = journey.visit(visit, &clients, &probes, args.at_once) => {
                for (index, landing) in landings {
                    if let Some((_, all)) = clients.get_mut(index) {
                        all.push(landing);
                    }
                }
            }
            _ = tokio::signal::ctrl_c() => interrupted = true,
        }
        if interrupted {
            break;
        }
    }
    progress.end();
    for (probe, _) in probes {
        probe.disconnect(Goodbye::default()).await;
    }
    let mut report = Visits { servers: args.server.clone(), clients }.report();
    report.gateway = target.name;
    report.protocol = target.version.to_string();
    report.seed = seed;
    report.sources = if loopback { u64::from(args.visits) } else { journey.sources.len().max(1) as u64 };
    if report.sources == 1 && args.visits > 1 {
        report.notes.push("all visits came from one address: -A with several shows more".to_owned());
    }
    if interrupted {
        report.notes.insert(0, "interrupted: the numbers are those until then".to_owned());
    }
    Ok(report)
}

/// A client that is connected and has subscribed.
struct Guest {
    index: usize,
    client: Client,
    events: EventStream,
    heard: Vec<usize>,
}

impl Journey {
    /// One client at each server, directly.
    async fn probes(&self, servers: &[String]) -> Result<Vec<(Client, EventStream)>, String> {
        let mut probes = Vec::with_capacity(servers.len());
        for (index, server) in servers.iter().enumerate() {
            let id = format!("{}probe{index}", self.prefix);
            let options =
                Options { server: address(server)?.to_string(), client_id: id, ..self.options.clone() };
            let probe = Client::connect(options).await;
            probes.push(probe.map_err(|error| format!("--server {server}: {error}"))?);
        }
        Ok(probes)
    }

    /// The address of a client's visit: another one each time, as far as there are several.
    fn source(&mut self, client: usize, visit: u32) -> Option<IpAddr> {
        if self.loopback {
            let address =
                Ipv4Addr::new(127, self.random.u8(1..=250), self.random.u8(..), self.random.u8(1..=250));
            return Some(address.into());
        }
        let index = (client + visit as usize).checked_rem(self.sources.len())?;
        self.sources.get(index).copied()
    }

    /// All clients connect, hear where they are, and go.
    async fn visit(
        &mut self,
        visit: u32,
        clients: &[(String, Vec<Landing>)],
        probes: &[(Client, EventStream)],
        at_once: u16,
    ) -> Vec<(usize, Landing)> {
        let topic = format!("{}/{visit}", self.topic);
        let mut landings = Vec::with_capacity(clients.len());
        let mut arriving = JoinSet::new();
        let door = Arc::new(Semaphore::new(at_once.into()));
        for (index, (id, _)) in clients.iter().enumerate() {
            let bind = self.source(index, visit);
            let options = Options { client_id: id.clone(), bind, ..self.options.clone() };
            let (door, topic) = (Arc::clone(&door), topic.clone());
            arriving.spawn(async move {
                let _place = door.acquire().await;
                (index, arrive(index, options, topic).await)
            });
        }
        let mut guests = Vec::with_capacity(clients.len());
        while let Some(arrived) = arriving.join_next().await {
            match arrived {
                Ok((_, Ok(guest))) => guests.push(guest),
                Ok((index, Err(why))) => landings.push((index, Landing::Nowhere(why))),
                // A task of ours that panicked has no client to speak of.
                Err(_) => {}
            }
        }
        for (server, (probe, _)) in probes.iter().enumerate() {
            let message = Message::new(topic.clone(), server.to_string()).qos(QoS::AtLeastOnce);
            // A server that went away is heard by nobody, and that is what the clients will tell.
            let _ = probe.publish(message).await;
        }
        let mut asking = JoinSet::new();
        for mut guest in guests {
            asking.spawn(async move {
                let _ = timeout(LOCATED_WITHIN, guest.listen()).await;
                guest
            });
        }
        let mut located = Vec::new();
        while let Some(guest) = asking.join_next().await {
            located.extend(guest);
        }
        sleep(SECOND_ANSWER).await;
        let mut leaving = JoinSet::new();
        for mut guest in located {
            while let Some(event) = guest.events.try_next() {
                guest.hear(&event);
            }
            landings.push((guest.index, guest.landing()));
            leaving.spawn(async move { guest.client.disconnect(Goodbye::default()).await });
        }
        while leaving.join_next().await.is_some() {}
        landings
    }
}

async fn arrive(index: usize, options: Options, topic: String) -> Result<Guest, String> {
    let (client, events) = Client::connect(options).await.map_err(|error| error.to_string())?;
    let granted = client.subscribe([Subscription::new(topic, QoS::AtMostOnce)]).await;
    let granted = granted.map_err(|error| error.to_string())?;
    match granted.reasons.first() {
        Some(reason) if reason.is_error() => Err(format!("the subscription was refused: {reason}")),
        _ => Ok(Guest { index, client, events, heard: Vec::new() }),
    }
}

impl Guest {
    /// Waits for the first word of a server.
    async fn listen(&mut self) {
        while self.heard.is_empty() {
            match self.events.next().await {
                Some(event) => self.hear(&event),
                None => return,
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        if let Event::Message(received) = event
            && let Ok(text) = std::str::from_utf8(&received.message.payload)
            && let Ok(server) = text.parse()
            && !self.heard.contains(&server)
        {
            self.heard.push(server);
        }
    }

    fn landing(&self) -> Landing {
        match self.heard.as_slice() {
            [] => Landing::Nowhere(
                "no --server reached the client: is every server of the balancer named?".to_owned(),
            ),
            [server] => Landing::At(*server),
            _ => Landing::Several,
        }
    }
}

fn table(report: &StickyReport) -> String {
    let mut text = String::new();
    let out = &mut text;
    row(out, "gateway", &format!("{}, MQTT {}, seed {}", report.gateway, report.protocol, report.seed));
    row(out, "visits", &format!("{} clients, {} times each", grouped(report.clients), report.visits));
    for server in &report.servers {
        row(out, "server", &format!("{:<24} {:>8} clients", server.server, grouped(server.clients)));
    }
    row(out, "spread", &format!("max/mean {:.2} (chance allows {:.2})", report.max_over_mean, report.chance));
    let share = report.share.map_or_else(|| "-".to_owned(), |share| format!("{share:.4}"));
    let (same, returns) = (grouped(report.same), grouped(report.returns));
    row(out, "sticky", &format!("{share}: {same} of {returns} returns to the same server"));
    for moved in report.moved.iter().take(NAMED) {
        let servers: Vec<&str> =
            moved.servers.iter().map(|server| server.as_deref().unwrap_or("-")).collect();
        row(out, "moved", &format!("{}: {}", moved.clientid, servers.join(" ")));
    }
    if report.moved.len() > NAMED {
        row(out, "moved", &format!("and {} more; --json has all", report.moved.len() - NAMED));
    }
    for note in &report.notes {
        row(out, "!", note);
    }
    text
}
