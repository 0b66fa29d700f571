//! Servers of another make and the gateway before them, and where devices land.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use mqtt::Version;
use mqtt::packet::Connect;

use super::{Device, Mosquitto, Site, Tidegate, device};

/// Names of servers, in their order.
pub(crate) const NAMES: [&str; 4] = ["mq1", "mq2", "mq3", "mq4"];

/// So many Mosquitto servers.
#[track_caller]
pub(crate) fn mosquittos(count: usize) -> Vec<Mosquitto> {
    (0..count).map(|_| Mosquitto::start()).collect()
}

/// Their names and addresses.
pub(crate) fn servers(mosquittos: &[Mosquitto]) -> Vec<(&'static str, SocketAddr)> {
    NAMES.into_iter().zip(mosquittos.iter().map(Mosquitto::mqtt)).collect()
}

/// The same as TOML, each with further keys.
pub(crate) fn servers_with(mosquittos: &[Mosquitto], keys: &str) -> String {
    let row = |(name, address)| format!("{{ name = \"{name}\", address = \"{address}\", {keys} }}");
    servers(mosquittos).into_iter().map(row).collect::<Vec<_>>().join(", ")
}

/// The gateway before them, with further lines for listener and upstream.
#[track_caller]
pub(crate) fn gateway(mosquittos: &[Mosquitto], listener: &str, upstream: &str) -> Tidegate {
    Site::new("gateway").gateway(listener, upstream, &servers(mosquittos)).start()
}

/// Connects a device, asks where it is, and lets it go: the server and what chose it.
#[track_caller]
pub(crate) fn visit(gateway: &Tidegate, from: Ipv4Addr, connect: &Connect<'_>) -> (String, String) {
    let clientid = connect.client_id.to_string();
    let (device, _) = Device::connect_from(from.into(), gateway.gate(), connect);
    let connection = gateway.connection(&clientid).newest;
    device.goodbye();
    gateway.gone(&clientid);
    (connection.server, connection.chosen_by)
}

/// Where each of so many devices lands, by client id.
#[track_caller]
pub(crate) fn homes(gateway: &Tidegate, devices: u32) -> BTreeMap<String, String> {
    (0..devices)
        .map(|number| {
            let clientid = format!("vehicle-{number}");
            let version = [Version::V31, Version::V311, Version::V5][number as usize % 3];
            let from = super::address::source(number * 31 + 7);
            let (server, _) = visit(gateway, from, &device::connect(version, &clientid));
            (clientid, server)
        })
        .collect()
}

/// How many of them are at each server.
pub(crate) fn shares<'a>(servers: impl IntoIterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    let mut shares = BTreeMap::new();
    for server in servers {
        *shares.entry(server.as_str()).or_default() += 1;
    }
    shares
}
