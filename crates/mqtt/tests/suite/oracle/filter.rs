//! Topic filters by the letter of 4.7 and 4.8.2, as naively as possible.

use mqtt::filter::{Filter, matches};
use mqtt::topic;

/// Whether `levels` of a filter match `names` of a topic: the definition, level by level.
fn naive(levels: &[&str], names: &[&str]) -> bool {
    match (levels, names) {
        (["#"], _) => true,
        ([level, levels @ ..], [name, names @ ..]) => {
            (*level == "+" || level == name) && naive(levels, names)
        }
        (levels, names) => levels.is_empty() && names.is_empty(),
    }
}

/// Whether `path` is a topic filter, apart from shared subscriptions.
fn valid(path: &str) -> bool {
    let levels: Vec<&str> = path.split('/').collect();
    let wildcards_alone = levels.iter().all(|level| level.len() == 1 || !level.contains(['+', '#']));
    let hash_last = !levels[..levels.len() - 1].contains(&"#");
    !path.is_empty() && path.len() <= 65_535 && !path.contains('\0') && wildcards_alone && hash_last
}

/// Compares the crate with the definitions; panics where they differ.
pub(crate) fn check(filter: &str, name: &str) {
    let parts: Vec<&str> = filter.splitn(3, '/').collect();
    let (share, path, expected) = match parts[..] {
        ["$share", group, path] => {
            let good_group = !group.is_empty() && !group.contains(['+', '#', '\0']);
            (Some(group), path, good_group && valid(path) && filter.len() <= 65_535)
        }
        ["$share", _] => (None, filter, false),
        _ => (None, filter, valid(filter)),
    };
    let parsed = Filter::parse(filter);
    assert_eq!(parsed.is_ok(), expected, "{filter:?}: {parsed:?}");
    let name_valid = !name.is_empty() && name.len() <= 65_535 && !name.contains(['+', '#', '\0']);
    assert_eq!(topic::validate(name).is_ok(), name_valid, "{name:?}");
    let Ok(parsed) = parsed else { return };
    assert_eq!((parsed.as_str(), parsed.share(), parsed.path()), (filter, share, path));
    assert_eq!(parsed.has_wildcards(), path.contains(['+', '#']));
    let levels: Vec<&str> = path.split('/').collect();
    let names: Vec<&str> = name.split('/').collect();
    let hidden = name.starts_with('$') && (path.starts_with('+') || path.starts_with('#'));
    assert_eq!(matches(path, name), !hidden && naive(&levels, &names), "{path:?} and {name:?}");
    assert_eq!(parsed.matches(name), matches(path, name));
    if !parsed.has_wildcards() {
        assert_eq!(matches(path, name), path == name);
    }
}
