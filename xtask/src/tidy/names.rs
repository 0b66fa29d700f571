//! A name says what is inside. Names that fit anything collect everything.

use super::{Finding, Tree};

const VAGUE: &[&str] = &["common", "util", "utils", "helper", "helpers", "manager", "misc", "core"];

/// The one room where the word is exact: the wire types of MQTT.
const HOME_OF_TYPES: &str = "crates/mqtt/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &tree.packages {
        if let Some(word) = vague_word(&package.name) {
            findings.push(Finding::new(
                "Cargo.toml",
                0,
                format!("the crate `{}` says `{word}`", package.name),
            ));
        }
    }
    for file in &tree.rust {
        let mut segments = file.path.trim_end_matches(".rs").split('/');
        if let Some(word) = segments.clone().find_map(vague_word) {
            findings.push(Finding::new(&file.path, 0, format!("the path says `{word}`; say what is inside")));
        } else if segments.next_back() == Some("types") && !file.path.starts_with(HOME_OF_TYPES) {
            findings.push(Finding::new(
                &file.path,
                0,
                "`types` is everything; name the file after what it defines",
            ));
        }
        for (line, name) in file.source.modules() {
            if let Some(word) = vague_word(name) {
                findings.push(Finding::new(&file.path, line + 1, format!("`mod {name}` says `{word}`")));
            }
        }
    }
    findings
}

fn vague_word(name: &str) -> Option<&str> {
    name.split(['_', '-']).find(|word| VAGUE.contains(word))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_lines;
    use super::*;

    #[test]
    fn a_path_that_could_hold_anything_is_found() {
        check_lines(check, "crates/net/src/peek.rs", "", &[]);
        check_lines(check, "crates/net/src/utils.rs", "", &[0]);
        check_lines(check, "crates/net/src/session_manager.rs", "", &[0]);
        check_lines(check, "crates/core/src/lib.rs", "", &[0]);
        check_lines(check, "crates/net/src/score.rs", "", &[]);
    }

    #[test]
    fn types_are_at_home_in_mqtt_only() {
        check_lines(check, "crates/mqtt/src/types.rs", "", &[]);
        check_lines(check, "crates/net/src/types.rs", "", &[0]);
    }

    #[test]
    fn a_module_inside_a_file_has_a_name_too() {
        check_lines(
            check,
            "crates/net/src/lib.rs",
            "mod tcp {}\nmod helpers {}\nuse std::fmt; // mod misc\n",
            &[2],
        );
    }
}
