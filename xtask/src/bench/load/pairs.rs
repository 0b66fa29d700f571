//! Publishers and subscribers of their topics: payload sizes, properties, shared groups, WebSocket, slow consumers.

use serde_json::Value;

use super::crowd::{Crowd, Server};
use super::flow::{self, Plan, Topics, own_topic};
use super::usage::Watched;
use super::wire::{self, Form, Version};
use super::{Options, server_of};

/// `--pubs`, `--subs`, `--slow`, `--size`, `--qos`, `--window`, `--inflight`, `--rate`, `--share 1`, `--properties 1`.
pub(super) fn run(options: &Options, watched: Watched) -> Result<Value, String> {
    let server: Server = server_of(options)?;
    let (pubs, subs) = (options.count("pubs", 10)?, options.count("subs", 10)?);
    let (slow, shared) = (options.count("slow", 0)?, options.flag("share")?);
    let qos = options.count("qos", 0)? as u8;
    if pubs == 0 || subs == 0 || qos > 1 || (!shared && subs % pubs != 0) {
        return Err("subscribers must be a multiple of publishers, and QoS 0 or 1".to_owned());
    }
    let properties = if options.flag("properties")? { wire::telemetry_properties() } else { Vec::new() };
    if !properties.is_empty() && server.version == Version::V311 {
        return Err("properties need --v 5".to_owned());
    }
    let rate = options.number("rate", 0.0)?;
    let plan = Plan {
        form: Form {
            version: server.version,
            qos,
            retain: false,
            size: options.count("size", 64)?.max(wire::STAMP),
            properties,
        },
        topics: Topics::Own,
        copies: if shared { 1 } else { (subs / pubs) as u64 },
        ordered: !shared,
        window: options.count("window", 1_024)? as i64,
        inflight: options.count("inflight", 20)? as u32,
        rate: (rate > 0.0).then_some(rate),
        secs: options.number("secs", 2.0)?,
    };
    let mut crowd = Crowd::new(server)?;
    let filters = |place: usize| {
        vec![if shared { "$share/load/plant/+/temperature".to_owned() } else { own_topic(place % pubs) }]
    };
    let receivers = crowd.gather(subs, filters, qos)?;
    for deaf in crowd.gather(slow, |place| vec![own_topic(place % pubs)], qos)? {
        crowd.stop_reading(deaf);
    }
    let publishers = crowd.gather(pubs, |_| Vec::new(), qos)?;
    flow::run(&mut crowd, &plan, publishers, receivers, watched)
}
