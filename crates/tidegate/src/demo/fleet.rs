//! The simulated vehicles: they connect through the gateway, publish, drop, and come back from another address.
//!
//! Which broker serves a vehicle is asked of the brokers' APIs after every connection, never assumed.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::client::RestClient;
use client::{Client, Event, EventStream, Goodbye, Message, Options, Subscription, Will};
use mqtt::{QoS, Version};
use runtime::clock::{Clock, rfc3339};
use runtime::lifecycle::Shutdown;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How long a broker's API may take to know of a connection that the broker has accepted.
const LOCATED_WITHIN: Duration = Duration::from_secs(5);

/// How long the vehicles may take to say good-bye in the end.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);

/// Pause after a connection that did not come about.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// What is known of a vehicle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    /// The broker that said it serves this connection, or the last one.
    pub(super) broker: Option<String>,
    /// Address and port of the connection that is up.
    pub(super) address: Option<SocketAddr>,
    /// Connections that a broker's API confirmed.
    pub(super) connections: u64,
    /// Messages published and received.
    pub(super) messages: u64,
    /// How often the broker was another one than before.
    pub(super) moved: u64,
    /// Addresses it came from.
    pub(super) addresses: HashSet<IpAddr>,
    /// Connections that failed or that no broker confirmed.
    pub(super) failures: u64,
    /// Why the last one did.
    pub(super) trouble: Option<String>,
}

impl Device {
    pub(super) fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }
}

/// All vehicles, as the table shows them.
#[derive(Debug)]
pub(super) struct Fleet(Mutex<Vec<Device>>);

impl Fleet {
    pub(super) fn new(vehicles: usize) -> Self {
        let device = |index| Device { name: format!("vehicle-{index:03}"), ..Device::default() };
        Self(Mutex::new((1..=vehicles).map(device).collect()))
    }

    pub(super) fn snapshot(&self) -> Vec<Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Device)) {
        if let Some(device) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            change(device);
        }
    }

    /// A broker confirmed a connection.
    pub(super) fn arrived(&self, index: usize, broker: &str, address: SocketAddr) {
        self.change(index, |device| {
            let moved = device.broker.as_deref().is_some_and(|before| before != broker);
            device.moved += u64::from(moved);
            device.broker = Some(broker.to_owned());
            device.address = Some(address);
            device.addresses.insert(address.ip());
            device.connections += 1;
            device.trouble = None;
        });
    }

    fn gone(&self, index: usize, trouble: Option<String>) {
        self.change(index, |device| {
            device.address = None;
            device.failures += u64::from(trouble.is_some());
            device.trouble = trouble;
        });
    }

    fn message(&self, index: usize) {
        self.change(index, |device| device.messages += 1);
    }
}

/// How vehicles behave.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    /// The gateway.
    pub(super) server: SocketAddr,
    /// The brokers' APIs.
    pub(super) apis: Vec<RestClient>,
    /// How long a connection lasts: between these two.
    pub(super) trip: (Duration, Duration),
    pub(super) seed: u64,
}

/// The vehicles at work.
pub(super) struct Vehicles {
    tasks: JoinSet<()>,
    stop: Shutdown,
}

impl Vehicles {
    /// Starts all of them.
    pub(super) fn start(fleet: &Arc<Fleet>, traffic: &Traffic) -> Self {
        let stop = Shutdown::new();
        let mut tasks = JoinSet::new();
        for (index, device) in fleet.snapshot().into_iter().enumerate() {
            let vehicle = Vehicle {
                index,
                name: device.name,
                fleet: Arc::clone(fleet),
                traffic: traffic.clone(),
                random: fastrand::Rng::with_seed(traffic.seed.wrapping_add(index as u64)),
                stop: stop.clone(),
                drive: Drive::default(),
                last_address: None,
            };
            tasks.spawn(vehicle.run());
        }
        Self { tasks, stop }
    }

    /// Lets them say good-bye; those that take too long are cut off.
    pub(super) async fn stop(mut self) {
        self.stop.begin("the demo ends");
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(GOODBYE_WITHIN, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

struct Vehicle {
    index: usize,
    name: String,
    fleet: Arc<Fleet>,
    traffic: Traffic,
    random: fastrand::Rng,
    stop: Shutdown,
    drive: Drive,
    last_address: Option<IpAddr>,
}

impl Vehicle {
    async fn run(mut self) {
        // Not all at the same moment.
        let mut pause = Duration::from_millis(self.random.u64(0..1000));
        while self.wait(pause).await {
            let trip = self.trip().await;
            pause = match &trip {
                Ok(()) => Duration::from_millis(self.random.u64(200..1500)),
                Err(_) => AFTER_FAILURE,
            };
            self.fleet.gone(self.index, trip.err());
        }
    }

    /// `false`: the demo ends.
    async fn wait(&self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => true,
            () = self.stop.wait() => false,
        }
    }

    /// One connection from a new address, to its good-bye or its abrupt end.
    async fn trip(&mut self) -> Result<(), String> {
        let connected = Client::connect(self.options()).await;
        let (client, mut events) = connected.map_err(|error| error.to_string())?;
        let address = match events.next().await {
            Some(Event::Connected(connected)) => connected.local_address,
            _ => None,
        };
        let address = address.ok_or("the connection has no address")?;
        let command = Subscription::new(format!("fleet/{}/command", self.name), QoS::AtLeastOnce);
        client.subscribe([command]).await.map_err(|error| error.to_string())?;
        let online = Message::new(format!("fleet/{}/status", self.name), "online");
        client.publish(online).await.map_err(|error| error.to_string())?;
        let broker = self.locate(address).await?;
        self.fleet.arrived(self.index, &broker, address);
        let outcome = self.travel(&client, &mut events).await;
        if self.stop.requested() || self.random.bool() {
            client.disconnect(Goodbye::default()).await;
        } else {
            // A tunnel, an empty battery: no good-bye; the broker publishes the will.
            client.abort();
        }
        outcome
    }

    /// Publishes telemetry until the trip is over.
    async fn travel(&mut self, client: &Client, events: &mut EventStream) -> Result<(), String> {
        let (shortest, longest) = self.traffic.trip;
        let end = sleep(shortest + (longest.saturating_sub(shortest)).mul_f64(self.random.f64()));
        tokio::pin!(end);
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                () = self.stop.wait() => return Ok(()),
                event = events.next() => match event {
                    Some(Event::Message(_)) => self.fleet.message(self.index),
                    Some(Event::Connected(_)) => {}
                    Some(Event::Disconnected { why, .. }) => return Err(why.to_string()),
                    None => return Err("the client ended".to_owned()),
                },
                _ = ticks.tick() => {
                    let telemetry = self.drive.telemetry(&self.name, &mut self.random);
                    let message = Message::new(format!("fleet/{}/telemetry", self.name), telemetry).qos(QoS::AtLeastOnce);
                    client.publish(message).await.map_err(|error| error.to_string())?;
                    self.fleet.message(self.index);
                }
            }
        }
    }

    /// Another source address than last time; every third vehicle of each kind of session.
    fn options(&mut self) -> Options {
        let address = loop {
            let address = IpAddr::from([127, 0, self.random.u8(1..=250), self.random.u8(1..=250)]);
            if self.last_address != Some(address) {
                break address;
            }
        };
        self.last_address = Some(address);
        let will = Message::new(format!("fleet/{}/status", self.name), "offline");
        let options = Options {
            will: Some(Will { message: will, delay_interval: None }),
            keep_alive: 20,
            connect_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
            ..Options::new(self.traffic.server.to_string(), self.name.clone()).from_address(address)
        };
        match self.index % 3 {
            0 => Options { clean_start: false, session_expiry_interval: Some(300), ..options },
            1 => Options { version: Version::V311, clean_start: false, ..options },
            _ => options,
        }
    }

    /// Asks the brokers which of them serves the connection from this address.
    async fn locate(&self, address: SocketAddr) -> Result<String, String> {
        let mut last = "no broker knows of the connection".to_owned();
        let asking = async {
            loop {
                for api in &self.traffic.apis {
                    match ask(api.clone(), self.name.clone(), address).await {
                        Ok(Some(node)) => return node,
                        Ok(None) => {}
                        Err(error) => last = error,
                    }
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LOCATED_WITHIN, asking).await.map_err(|_| format!("not confirmed by a broker: {last}"))
    }
}

/// The node's own name, if it says that it serves the client from that address now.
async fn ask(api: RestClient, clientid: String, address: SocketAddr) -> Result<Option<String>, String> {
    let answer = tokio::task::spawn_blocking(move || api.client(&clientid)).await;
    let client = answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let here = client.filter(|client| client.connected && client.peer == address.to_string());
    Ok(here.map(|client| client.node))
}

/// Where a vehicle is and how it moves: a town, a heading that drifts, a speed that changes.
#[derive(Clone, Copy, Debug)]
struct Drive {
    latitude: f64,
    longitude: f64,
    /// Degrees, 0 is north.
    heading: f64,
    kmh: f64,
}

impl Default for Drive {
    fn default() -> Self {
        Self { latitude: 48.137, longitude: 11.575, heading: 0.0, kmh: 0.0 }
    }
}

/// Metres in a degree of latitude.
const METRES_PER_DEGREE: f64 = 111_320.0;

impl Drive {
    /// Moves on by a second and tells where it is.
    fn telemetry(&mut self, name: &str, random: &mut fastrand::Rng) -> Vec<u8> {
        if self.kmh == 0.0 {
            self.heading = random.f64() * 360.0;
        }
        self.heading = (self.heading + random.f64() * 30.0 - 15.0).rem_euclid(360.0);
        self.kmh = (self.kmh + random.f64() * 20.0 - 8.0).clamp(5.0, 130.0);
        let metres = self.kmh / 3.6;
        let (east, north) = self.heading.to_radians().sin_cos();
        self.latitude += metres * north / METRES_PER_DEGREE;
        self.longitude += metres * east / (METRES_PER_DEGREE * self.latitude.to_radians().cos());
        let round = |value: f64, digits: i32| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
        serde_json::json!({
            "vehicle": name,
            "at": rfc3339(Clock::system().unix_millis()),
            "latitude": round(self.latitude, 6),
            "longitude": round(self.longitude, 6),
            "heading_degrees": round(self.heading, 1),
            "speed_kmh": round(self.kmh, 1),
        })
        .to_string()
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_device_has_moved_when_another_broker_confirms_it() {
        let fleet = Fleet::new(2);
        fleet.arrived(0, "node1", address("127.0.1.1:1000"));
        fleet.gone(0, None);
        fleet.arrived(0, "node1", address("127.0.2.2:2000"));
        let device = fleet.snapshot().remove(0);
        assert_eq!((device.reconnects(), device.moved, device.addresses.len()), (1, 0, 2));
        fleet.arrived(0, "node2", address("127.0.2.2:2001"));
        fleet.arrived(0, "node1", address("127.0.2.2:2002"));
        assert_eq!(fleet.snapshot()[0].moved, 2);
        assert_eq!(fleet.snapshot()[1], Device { name: "vehicle-002".to_owned(), ..Device::default() });
    }

    #[test]
    fn a_failed_connection_is_counted_with_its_reason() {
        let fleet = Fleet::new(1);
        fleet.gone(0, Some("refused".to_owned()));
        let device = fleet.snapshot().remove(0);
        assert_eq!((device.failures, device.trouble.as_deref(), device.connections), (1, Some("refused"), 0));
    }

    #[test]
    fn a_vehicle_moves_as_fast_as_it_says() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut drive = Drive::default();
        for _ in 0..1_000 {
            let before = drive;
            let told: serde_json::Value =
                serde_json::from_slice(&drive.telemetry("vehicle-001", &mut random)).unwrap();
            let north = (drive.latitude - before.latitude) * METRES_PER_DEGREE;
            let east =
                (drive.longitude - before.longitude) * METRES_PER_DEGREE * drive.latitude.to_radians().cos();
            let kmh = north.hypot(east) * 3.6;
            assert!((kmh - told["speed_kmh"].as_f64().unwrap()).abs() < 0.1, "{kmh} {told}");
        }
    }
}
