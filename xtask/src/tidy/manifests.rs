//! Versions stand in one table, and the number of packages we build on has a limit.

use super::{Finding, Tree};

/// How many packages `Cargo.lock` may list. Raise it with a reason in the commit; the field's brokers in Rust
/// need 1,240 (robustmq), which is a build nobody waits for.
const MOST_PACKAGES: usize = 260;

/// A dependency of a member must say `workspace = true`: its version stands in the root's table, once.
pub(super) fn check_versions(tree: &Tree) -> Vec<Finding> {
    // `fuzz` and `tools` are workspaces of their own; members of `tools` refer to its table.
    let is_member = |path: &str| {
        path.ends_with("/Cargo.toml") && !path.starts_with("fuzz/") && path != "tools/Cargo.toml"
    };
    let members = tree.files.iter().filter(|file| is_member(&file.path));
    members
        .flat_map(|file| {
            own_versions(&file.text).into_iter().map(|(line, name)| {
                let problem =
                    format!("`{name}` must be `workspace = true`, its version stands in the root's table");
                Finding::new(&file.path, line, problem)
            })
        })
        .collect()
}

/// The dependencies that don't refer to the workspace's table, with their line from 1.
fn own_versions(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut section = "";
    for (at, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let in_a_list = section.ends_with("dependencies");
        let in_a_table = section.contains("dependencies.");
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if in_a_list {
            let refers = key.ends_with(".workspace") || value.contains("workspace = true");
            if !refers && !key.contains('.') {
                found.push((at + 1, key));
            }
        } else if in_a_table && matches!(key, "version" | "path" | "git") {
            found.push((at + 1, section.rsplit('.').next().unwrap_or(section)));
        }
    }
    found
}

pub(super) fn check_package_count(tree: &Tree) -> Vec<Finding> {
    let Some(lock) = tree.files.iter().find(|file| file.path == "Cargo.lock") else { return Vec::new() };
    let count = lock.text.lines().filter(|line| *line == "[[package]]").count();
    let problem = || format!("{count} packages, and {MOST_PACKAGES} is the limit that we set ourselves");
    if count > MOST_PACKAGES { vec![Finding::new("Cargo.lock", 0, problem())] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_lines;
    use super::*;

    #[test]
    fn a_version_outside_the_workspace_table_is_found() {
        let member = "crates/net/Cargo.toml";
        check_lines(check_versions, member, "[dependencies]\nbytes.workspace = true\n", &[]);
        check_lines(
            check_versions,
            member,
            "[dependencies]\nbytes = { workspace = true, optional = true }\n",
            &[],
        );
        check_lines(check_versions, member, "[dependencies]\nbytes = \"1\"\n", &[2]);
        check_lines(
            check_versions,
            member,
            "[dev-dependencies]\nmqtt = { path = \"../mqtt\" } # near\n",
            &[2],
        );
        check_lines(
            check_versions,
            member,
            "[target.'cfg(unix)'.dependencies.bytes]\nversion = \"1\"\n",
            &[2],
        );
        check_lines(check_versions, member, "[package]\nversion = \"1\"\n[features]\ntls = []\n", &[]);
        check_lines(check_versions, "Cargo.toml", "[workspace.dependencies]\nbytes = \"1\"\n", &[]);
    }

    #[test]
    fn the_number_of_packages_has_a_limit() {
        check_lines(check_package_count, "Cargo.lock", &"[[package]]\n".repeat(MOST_PACKAGES), &[]);
        check_lines(check_package_count, "Cargo.lock", &"[[package]]\n".repeat(MOST_PACKAGES + 1), &[0]);
    }
}
