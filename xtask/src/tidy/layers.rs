//! Crates depend downwards only, and walls that the levels alone don't build are named here.

use super::{Finding, Tree};
use crate::workspace::Package;

/// The level of each room, as ARCHITECTURE.md shows them. A crate may use crates of lower levels only.
const LEVELS: &[(u32, &[&str])] = &[
    (5, &["tidegate"]),
    (4, &["admin", "cli", "connectors", "plugins", "http", "guards"]),
    (3, &["broker", "gateway", "client", "gslb"]),
    (2, &["net", "engine", "access", "rules", "adapters"]),
    (1, &["mqtt", "runtime", "api"]),
];

/// Edges that never may be, with the reason: ours that the levels would allow, and others' heavy or impure crates.
const WALLS: &[(&str, &[&str], &str)] = &[
    ("cli", &["broker", "gateway", "gslb", "engine"], "the client tools know no server"),
    ("admin", &["broker", "gateway", "gslb", "engine"], "roles hand it traits of `api`"),
    ("gateway", &["engine"], "the gateway keeps nothing"),
    (
        "mqtt",
        &["tokio", "socket2", "rustix", "fastrand"],
        "the codec has no sockets, tasks, clocks or chance",
    ),
    ("engine", &["tokio"], "no connection awaits an engine"),
];

/// Others' crates that live in few rooms, so that the rest builds without them.
const HOMES: &[(&str, &[&str])] = &[
    ("axum", &["admin"]),
    ("clap", &["cli", "tidegate"]),
    ("utoipa", &["api", "admin"]),
    ("sd-notify", &["net", "runtime"]),
];

/// The package that is outside the levels: it sees the workspace only as text.
const WORKSHOP: &str = "xtask";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Finding> {
    let name = package.name.as_str();
    let mut problems = Vec::new();
    let level = level_of(name);
    if level.is_none() && name != WORKSHOP {
        problems.push(format!("`{name}` has no level: give it one in xtask and ARCHITECTURE.md"));
    }
    for used in &package.dependencies {
        let used = used.as_str();
        match (level, level_of(used)) {
            (Some(from), Some(to)) if to >= from => {
                problems.push(format!(
                    "`{name}` (level {from}) uses `{used}` (level {to}): edges point down only"
                ));
            }
            (None, Some(_)) => problems.push(format!("`{name}` uses the room `{used}`")),
            _ => {}
        }
        for (_, _, reason) in WALLS.iter().filter(|(from, to, _)| *from == name && to.contains(&used)) {
            problems.push(format!("`{name}` uses `{used}`: {reason}"));
        }
        for (_, homes) in HOMES.iter().filter(|(guest, homes)| *guest == used && !homes.contains(&name)) {
            problems.push(format!("`{name}` uses `{used}`, which lives in {} only", homes.join(" and ")));
        }
    }
    let path =
        if name == WORKSHOP { "xtask/Cargo.toml".to_owned() } else { format!("crates/{name}/Cargo.toml") };
    problems.into_iter().map(|problem| Finding::new(&path, 0, problem)).collect()
}

fn level_of(name: &str) -> Option<u32> {
    LEVELS.iter().find(|(_, rooms)| rooms.contains(&name)).map(|&(level, _)| level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_edges(name: &str, uses: &[&str], problems: &[&str]) {
        let dependencies = uses.iter().map(|&used| used.to_owned()).collect();
        let package = Package { name: name.to_owned(), dependencies, has_tests_folder: false };
        let found: Vec<String> = check_package(&package).into_iter().map(|finding| finding.problem).collect();
        assert_eq!(found, problems);
    }

    #[test]
    fn edges_down_are_fine() {
        check_edges("tidegate", &["admin", "broker", "mqtt", "tokio"], &[]);
        check_edges("broker", &["engine", "net", "mqtt", "bytes"], &[]);
        check_edges("net", &["runtime"], &[]);
        check_edges("xtask", &["serde_json"], &[]);
    }

    #[test]
    fn edges_up_and_sideways_are_found() {
        check_edges("mqtt", &["net"], &["`mqtt` (level 1) uses `net` (level 2): edges point down only"]);
        check_edges(
            "gateway",
            &["broker"],
            &["`gateway` (level 3) uses `broker` (level 3): edges point down only"],
        );
    }

    #[test]
    fn walls_stand_where_levels_would_let_pass() {
        check_edges("cli", &["broker"], &["`cli` uses `broker`: the client tools know no server"]);
        check_edges(
            "mqtt",
            &["tokio"],
            &["`mqtt` uses `tokio`: the codec has no sockets, tasks, clocks or chance"],
        );
    }

    #[test]
    fn heavy_guests_stay_in_their_homes() {
        check_edges("admin", &["axum"], &[]);
        check_edges("broker", &["axum"], &["`broker` uses `axum`, which lives in admin only"]);
    }

    #[test]
    fn a_room_without_a_level_and_a_workshop_with_rooms_are_found() {
        check_edges("attic", &[], &["`attic` has no level: give it one in xtask and ARCHITECTURE.md"]);
        check_edges("xtask", &["mqtt"], &["`xtask` uses the room `mqtt`"]);
    }
}
