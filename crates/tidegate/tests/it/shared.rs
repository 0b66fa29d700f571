//! Shared subscriptions (4.8.2) with the clients that others wrote, in version 3.1.1 and 5.

use mqtt::packet::Packet;
use mqtt::{QoS, Version};

use crate::harness::mosquitto::{publish, publish_input, subscribe};
use crate::harness::process::Process;
use crate::harness::wait::eventually;
use crate::harness::{Device, Site, Tidegate, device, http};

const FILTER: &str = "$share/workers/jobs/#";

/// A member that prints what it gets.
fn member(broker: &Tidegate, name: &str, more: &[&str]) -> Process {
    let arguments = [&["-i", name, "-t", FILTER, "-q", "1", "-F", "got %p"], more].concat();
    subscribe(broker.mqtt(), &arguments)
}

fn got(member: &Process) -> usize {
    member.out.count(&["got "])
}

/// The next message, which is not acknowledged.
fn unanswered(device: &mut Device) -> String {
    match device.receive() {
        Packet::Publish(publish) => device::payload(&publish),
        other => panic!("{other:?} instead of PUBLISH"),
    }
}

/// `from..=to`, a line each, by one publisher.
fn jobs(broker: &Tidegate, from: u32, to: u32) {
    let lines: String = (from..=to).map(|n| format!("job-{n}.\n")).collect();
    publish_input(broker.mqtt(), &["-t", "jobs/1", "-q", "1", "-l"], lines.as_bytes());
}

#[test]
fn members_of_both_versions_take_turns() {
    let broker = Tidegate::broker("node1");
    let members = [
        member(&broker, "one", &["-V", "311"]),
        member(&broker, "two", &["-V", "5"]),
        member(&broker, "three", &["-V", "5"]),
    ];
    jobs(&broker, 1, 30);
    eventually("all thirty", || (members.iter().map(got).sum::<usize>() == 30).then_some(()));
    assert_eq!(members.iter().map(got).collect::<Vec<_>>(), [10, 10, 10]);
    for n in 1..=30 {
        let job = format!("got job-{n}.");
        assert_eq!(members.iter().map(|m| m.out.count(&[&job])).sum::<usize>(), 1, "{job}");
    }
    assert_eq!(broker.metric("tidegate_broker_shared_groups"), 1.0);
    assert_eq!(broker.metric("tidegate_broker_shared_messages_dealt_total"), 30.0);
    let rows = http::get(broker.api(), "/api/v1/clients/two/subscriptions").json();
    assert_eq!(rows["data"][0]["topic"], FILTER, "{rows}");
}

#[test]
fn what_was_published_while_all_were_away_goes_to_whoever_comes_first() {
    let broker = Tidegate::broker("node1");
    for (name, version) in [("one", &["-c", "-V", "311"][..]), ("two", &["-c", "-V", "5", "-x", "600"][..])] {
        let mut away = member(&broker, name, version);
        away.kill();
        broker.client_when(name, |client| !client.connected);
    }
    jobs(&broker, 1, 20);
    let two = member(&broker, "two", &["-c", "-V", "5", "-x", "600"]);
    eventually("all twenty", || (got(&two) == 20).then_some(()));
    let one = member(&broker, "one", &["-c", "-V", "311"]);
    jobs(&broker, 21, 22);
    eventually("two more", || (got(&one) + got(&two) == 22).then_some(()));
    assert_eq!((got(&one), got(&two)), (1, 21));
}

#[test]
fn what_a_member_did_not_acknowledge_goes_to_another_when_it_goes() {
    for durable in [false, true] {
        let site = Site::new("node1");
        let broker = site
            .broker("shared_subscription_groups = [{ group = \"workers\", strategy = \"sticky\" }]", "")
            .start();
        let mut hello = device::connect(Version::V5, "silent");
        (hello.clean_start, hello.properties.session_expiry_interval) = (!durable, durable.then_some(600));
        let mut silent = Device::connect(broker.mqtt(), &hello);
        silent.subscribe(FILTER, QoS::AtLeastOnce);
        publish(broker.mqtt(), &["-t", "jobs/1", "-q", "1", "-m", "first"]);
        assert_eq!(unanswered(&mut silent), "first");
        let other = member(&broker, "other", &["-V", "311"]);
        publish(broker.mqtt(), &["-t", "jobs/1", "-q", "1", "-m", "second"]);
        assert_eq!(unanswered(&mut silent), "second", "sticky");
        drop(silent);
        other.out.line_with(&["got first"]);
        other.out.line_with(&["got second"]);
        assert_eq!(broker.metric("tidegate_broker_shared_messages_redelivered_total"), 2.0);
    }
}
