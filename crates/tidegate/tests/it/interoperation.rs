//! Programs of other makes that do more than publish and subscribe, and addresses that are names or IPv6.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mqtt::{QoS, Version};

use crate::harness::address::{eight_ports, own};
use crate::harness::mosquitto::{publish, subscribe};
use crate::harness::{Device, Mosquitto, Site, Tidegate, device, eventually};

#[test]
fn a_mosquitto_bridge_carries_messages_both_ways() {
    let broker = Tidegate::broker("node1");
    let lines = format!(
        "connection cloud\naddress {}\nremote_clientid bridge-1\nbridge_protocol_version mqttv311\n\
         topic site/# out 1\ntopic orders/# in 1\nnotifications false\ntry_private true\n",
        broker.mqtt()
    );
    let site = Mosquitto::start_with(own(), &lines);
    broker.client_when("bridge-1", |client| client.connected && client.subscriptions_cnt == 1);
    let above = subscribe(broker.mqtt(), &["-t", "site/#", "-q", "1", "-C", "1", "-F", "%t %p"]);
    let below = subscribe(site.mqtt(), &["-t", "orders/#", "-q", "1", "-C", "1", "-F", "%t %p"]);
    publish(site.mqtt(), &["-t", "site/7/state", "-m", "up", "-q", "1"]);
    above.out.line_with(&["site/7/state up"]);
    publish(broker.mqtt(), &["-t", "orders/7", "-m", "go", "-q", "1"]);
    below.out.line_with(&["orders/7 go"]);
    // The bridge says that it is one, by a bit beside the protocol level; it is an ordinary client all the same.
    assert_eq!(broker.client("bridge-1").expect("connected").proto_ver, 4);
}

#[test]
fn a_mosquitto_bridge_through_the_gateway_stays_at_its_server() {
    let servers = [Tidegate::broker("node1"), Tidegate::broker("node2")];
    let list = [("node1", servers[0].mqtt()), ("node2", servers[1].mqtt())];
    let gateway = Site::new("gateway").gateway("", "", &list).start();
    let lines = format!(
        "connection cloud\naddress {}\nremote_clientid bridge-1\nbridge_protocol_version mqttv311\ntopic # out 1\n\
         notifications false\nrestart_timeout 1\n",
        gateway.gate()
    );
    let site = Mosquitto::start_with(own(), &lines);
    let first = gateway.connection("bridge-1").newest;
    let home = servers.iter().find(|server| server.site.name() == first.server).expect("one of them");
    home.client_when("bridge-1", |client| client.connected);
    home.rest.kick("bridge-1").expect("an answer");
    // It comes back by itself, to the same one.
    let again = eventually("a second connection", || {
        gateway.rest.connection("bridge-1").expect("an answer").filter(|now| now.newest.id != first.id)
    });
    assert_eq!((again.newest.server, again.newest.chosen_by.as_str()), (first.server, "hash"));
    drop(site);
}

#[test]
fn servers_may_be_names_and_the_hash_sees_the_name() {
    let port = eight_ports();
    let named = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let site = Site::new("node1");
    let sections = format!("[broker]\n[[broker.listeners]]\nbind = \"{named}\"\n");
    let broker = site.sections(&sections).start();
    let gateway = Site::new("gateway")
        .gateway_to(
            "",
            "",
            &format!("{{ address = \"localhost:{port}\" }}, {{ address = \"no-such-host.invalid:1883\" }}"),
        )
        .start();
    for number in 0..6 {
        let clientid = format!("car-{number}");
        let device = Device::connect(gateway.gate(), &device::connect(Version::V5, &clientid));
        let row = gateway.connection(&clientid).newest;
        assert_eq!(
            (row.server.as_str(), row.server_address.as_str()),
            (&*format!("localhost:{port}"), &*named.to_string())
        );
        assert!(broker.client(&clientid).is_some());
        device.goodbye();
    }
    // Some of them were meant for the name that nobody knows.
    let failed = gateway.event("upstream_failed", |_| true);
    assert_eq!(failed["server"], "no-such-host.invalid:1883");
}

#[test]
fn ipv6_devices_keep_their_address_through_the_gateway() {
    let port = eight_ports();
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let broker = Site::new("node1").broker("", "proxy_protocol = true").start();
    let gateway = Site::new("gateway");
    let sections = format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"{six}\"\nupstream = \"brokers\"\n[[gateway.upstreams]]\n\
         name = \"brokers\"\nproxy_protocol = \"v2\"\nservers = [ {{ name = \"node1\", address = \"{}\" }} ]\n",
        broker.mqtt()
    );
    let gateway = gateway.sections(&sections).start();
    let (mut device, _) =
        Device::connect_from(Ipv6Addr::LOCALHOST.into(), six, &device::connect(Version::V5, "six"));
    let client = broker.client("six").expect("at the broker");
    assert_eq!(client.peer, device.local().to_string());
    assert_eq!(gateway.connection("six").newest.peer, client.peer);
    device.subscribe("t", QoS::AtLeastOnce);
    let mut sender = Device::dial_from(Ipv6Addr::LOCALHOST.into(), six);
    sender.hello(&device::connect(Version::V311, "sender"));
    sender.publish(device::message("t", "over IPv6", QoS::AtLeastOnce));
    assert_eq!(device::payload(&device.message()), "over IPv6");
}
