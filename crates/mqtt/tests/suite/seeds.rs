//! The seeds of the fuzzers (`fuzz/seeds`) come from the table of fixtures.

use std::collections::BTreeMap;
use std::path::Path;

use mqtt::codec::decode::Role;

use crate::fixtures::table;
use crate::seed_files;

/// Path below `fuzz/seeds`, and content.
fn seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    for fixture in table() {
        let name = format!("{}-v{}", fixture.name, fixture.version.level());
        if fixture.sender == Role::Client && fixture.bytes[0] >> 4 == 1 {
            seeds.insert(format!("peek_connect/{name}"), fixture.bytes.clone());
        }
        seeds.insert(format!("decode/{name}"), fixture.bytes);
    }
    for (name, filter, topic) in [
        ("hash", "sport/tennis/#", "sport/tennis"),
        ("plus", "+/tennis/+", "sport/tennis/player1"),
        ("exact", "/finance", "/finance"),
        ("hidden", "#", "$SYS/broker"),
        ("shared", "$share/group/a/+/#", "a/b/c"),
        ("invalid_share", "$share/+/a", "a"),
        ("invalid_hash", "a#/b", "a"),
        ("unicode", "grüße/\u{FEFF}", "grüße/\u{FEFF}"),
    ] {
        seeds.insert(format!("filter_match/{name}"), format!("{filter}\n{topic}").into_bytes());
    }
    // Receive Maximum, then operations as crate::oracle::inflight::parse reads them.
    for (name, bytes) in [
        ("qos1", "000a 000000 000000 040000 040000"),
        ("qos2", "000a 400000 050000 050000 060000"),
        ("refused", "000a 400000 250000 000000"),
        ("quota", "0001 000000 400000 040000 400000"),
        ("wrap", "ffff 09fffe 000000 000000 000000 040100 080000 000000"),
        ("disorder", "ffff 090005 490003 690009 000000 840003 850003 040000"),
        ("received", "0002 4a0007 4a0007 0a0001 0a0002 0c0000 8d0007 4a0007"),
        ("reconnected", "0002 4a0007 000000 070005 080000 4a0007 0d0000"),
    ] {
        seeds.insert(format!("inflight_ops/{name}"), crate::fixtures::wire(bytes));
    }
    seeds
}

#[test]
fn the_seeds_of_the_fuzzers_are_those_of_the_table() {
    seed_files::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), &seeds());
}
