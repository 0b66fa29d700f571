//! Who sends commands to a group and takes the answers: a client with a good network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use client::{
    Backoff, Client, Delivery, Event, EventStream, Goodbye, Message, Options, Reconnect, Subscription,
};
use runtime::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::scenario::Commands;
use super::tally::Fleet;
use super::vehicle::{Phase, World, topic};

/// Commands whose answers are awaited; those of further ones are counted and not timed.
const AWAITED: usize = 100_000;

/// Commands whose acknowledgement is awaited.
const DELIVERIES: usize = 1_000;

/// When which command went out: by vehicle, from 1, and id.
type Awaited = Arc<Mutex<HashMap<(u64, u64), Instant>>>;

/// Sends commands until the fleet gathers, and takes answers until it stops.
pub(super) async fn command(fleet: Arc<Fleet>, world: World, mut phase: watch::Receiver<Phase>) {
    let Some(commands) = fleet.group.commands.clone() else { return };
    let options = Options {
        version: fleet.group.version,
        password: fleet.group.password.clone().map(Into::into),
        username: fleet.group.username.as_ref().map(|name| topic(name, &fleet.group, 1)),
        reconnect: Reconnect::WithBackoff(Backoff::default()),
        clock: world.clock.clone(),
        ..Options::new(world.server.to_string(), format!("simulate-{:08x}-{}", fleet.run, fleet.group.name))
    };
    let (client, events) = Client::start(options);
    let awaited = Awaited::default();
    let answers = tokio::spawn(answers(
        Arc::clone(&fleet),
        client.clone(),
        events,
        Arc::clone(&awaited),
        world.clock.clone(),
    ));
    let (sent, deliveries) = mpsc::channel(DELIVERIES);
    let collector = tokio::spawn(collect(Arc::clone(&fleet), deliveries));
    tokio::select! {
        () = send(&fleet, &commands, &client, &awaited, &world, sent) => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Gather) => {}
    }
    // An error: nobody steers any more.
    let _ = phase.wait_for(|phase| *phase >= Phase::Stop).await;
    client.disconnect(Goodbye::default()).await;
    collector.abort();
    answers.abort();
}

/// Each vehicle in its turn.
async fn send(
    fleet: &Fleet,
    commands: &Commands,
    client: &Client,
    awaited: &Awaited,
    world: &World,
    sent: mpsc::Sender<Delivery>,
) {
    let count = fleet.group.count;
    let mut random = fastrand::Rng::with_seed(world.seed);
    let mut ids = vec![0_u64; count as usize];
    let mut ticks = interval(commands.interval / count);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for vehicle in (0..count).cycle() {
        ticks.tick().await;
        if !fleet.is_listening(vehicle) {
            continue;
        }
        let Some(id) = ids.get_mut(vehicle as usize) else { continue };
        let name = random.choice(commands.names.iter()).map_or("", String::as_str);
        let order = serde_json::json!({ "run": fleet.run, "id": *id, "command": name });
        let address = topic(&commands.topic, &fleet.group, vehicle + 1);
        let mut message = Message::new(address, order.to_string()).qos(commands.qos);
        message.properties.response_topic = Some(topic(&commands.answer, &fleet.group, vehicle + 1).into());
        message.properties.correlation_data = Some(id.to_string().into_bytes().into());
        {
            let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
            if awaited.len() < AWAITED {
                awaited.insert((u64::from(vehicle) + 1, *id), world.clock.now());
            }
        }
        *id += 1;
        fleet.count(|tally| tally.commands_sent += 1);
        let Ok(delivery) = client.submit(message).await else { return };
        if sent.send(delivery).await.is_err() {
            return;
        }
    }
}

async fn collect(fleet: Arc<Fleet>, mut deliveries: mpsc::Receiver<Delivery>) {
    while let Some(delivery) = deliveries.recv().await {
        if delivery.await.is_ok_and(|reason| !reason.is_error()) {
            fleet.count(|tally| tally.commands_acknowledged += 1);
        }
    }
}

/// Takes answers; each command's first one counts.
async fn answers(fleet: Arc<Fleet>, client: Client, mut events: EventStream, awaited: Awaited, clock: Clock) {
    while let Some(event) = events.next().await {
        match event {
            Event::Connected(connected) if !connected.session_present => {
                let Some(commands) = &fleet.group.commands else { return };
                let Some(filter) = commands.answer.filter(&fleet.group.name) else { return };
                let (client, subscription) = (client.clone(), Subscription::new(filter, commands.qos));
                // Beside the events, which bring its answer.
                tokio::spawn(async move { client.subscribe([subscription]).await });
            }
            Event::Message(received) => {
                let answer = serde_json::from_slice::<serde_json::Value>(&received.message.payload)
                    .unwrap_or_default();
                if answer["run"] != fleet.run || answer["group"] != *fleet.group.name {
                    continue;
                }
                let (Some(vehicle), Some(id)) = (answer["vehicle"].as_u64(), answer["id"].as_u64()) else {
                    continue;
                };
                let sent = awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&(vehicle, id));
                if let Some(sent) = sent {
                    let took = clock.now().saturating_duration_since(sent).as_nanos();
                    fleet.count(|tally| {
                        tally.answers += 1;
                        tally.round_trip.add(u64::try_from(took).unwrap_or(u64::MAX));
                    });
                }
            }
            _ => {}
        }
    }
}
