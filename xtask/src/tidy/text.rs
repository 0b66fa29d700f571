//! Rules about any text file: no paths of one machine, no stray white space, and a map that shows every room.

use super::{Finding, Tree};

/// Folders that exist on one machine only. Written in pieces, so that this file passes its own rule.
const MACHINE_FOLDERS: &[&[&str]] =
    &[&["", "work", ""], &["", "root", ""], &["", "home", ""], &["", "Users", ""]];

/// Ends of files whose bytes a program makes.
const MADE: &[&str] = &[".snap", ".pem", ".lock"];
/// Where files lie that are input and no text, even if their bytes happen to be text.
const INPUTS: &str = "fuzz/seeds/";

const MAP: &str = "ARCHITECTURE.md";
/// Lines of the map; a longer one is not read.
const LONGEST_MAP: usize = 500;

pub(super) fn check_machine_paths(tree: &Tree) -> Vec<Finding> {
    let folders: Vec<String> = MACHINE_FOLDERS.iter().map(|parts| parts.join("/")).collect();
    let mut findings = Vec::new();
    for file in &tree.files {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(folder) = folders.iter().find(|folder| names_absolute(line, folder)) {
                findings.push(Finding::new(
                    &file.path,
                    at + 1,
                    format!("`{folder}` is a path of one machine"),
                ));
            }
        }
    }
    findings
}

/// Whether `folder` stands in `line` at the beginning of a path, not inside a longer one or a topic.
fn names_absolute(line: &str, folder: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "/+#.-_{}~".contains(c);
    line.match_indices(folder).any(|(at, _)| !line[..at].ends_with(inside))
}

pub(super) fn check_white_space(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_ours = |path: &str| !path.starts_with(INPUTS) && !MADE.iter().any(|end| path.ends_with(end));
    for file in tree.files.iter().filter(|file| is_ours(&file.path)) {
        for (at, line) in file.text.lines().enumerate() {
            if line.ends_with(char::is_whitespace) {
                findings.push(Finding::new(&file.path, at + 1, "white space at the end of the line"));
            }
        }
        let last = file.text.lines().count();
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            findings.push(Finding::new(&file.path, last, "the last line has no end"));
        } else if file.text.ends_with("\n\n") {
            findings.push(Finding::new(&file.path, last, "empty lines at the end"));
        }
    }
    findings
}

/// The map is short, and every room is on it.
pub(super) fn check_map(tree: &Tree) -> Vec<Finding> {
    let Some(map) = tree.files.iter().find(|file| file.path == MAP) else {
        return vec![Finding::new(MAP, 0, "is missing")];
    };
    let mut findings = Vec::new();
    let lines = map.text.lines().count();
    if lines > LONGEST_MAP {
        findings.push(Finding::new(MAP, 0, format!("{lines} lines; {LONGEST_MAP} are the limit")));
    }
    for package in &tree.packages {
        if !super::source::words(&map.text).any(|(_, word)| word == package.name) {
            findings.push(Finding::new(MAP, 0, format!("`{}` is not on it", package.name)));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_lines, tree_of};
    use super::*;
    use crate::workspace::Package;

    #[test]
    fn a_path_of_one_machine_is_found_in_any_file() {
        let path = |name: &str| format!("see {}x\n", ["", name, ""].join("/"));
        check_lines(check_machine_paths, "README.md", &path("work"), &[1]);
        check_lines(check_machine_paths, "README.md", &path("root"), &[1]);
        check_lines(check_machine_paths, "README.md", &path("etc"), &[]);
    }

    #[test]
    fn a_topic_with_the_same_level_is_no_path() {
        let topic = format!("plant{}7\n", ["", "work", ""].join("/"));
        check_lines(check_machine_paths, "README.md", &topic, &[]);
    }

    #[test]
    fn stray_white_space_is_found() {
        check_lines(check_white_space, "a.md", "one\ntwo\n", &[]);
        check_lines(check_white_space, "a.md", "one \ntwo\t\n", &[1, 2]);
        check_lines(check_white_space, "a.md", "one\ntwo", &[2]);
        check_lines(check_white_space, "a.md", "one\n\n", &[2]);
        check_lines(check_white_space, "a.snap", "one \n", &[]);
        check_lines(check_white_space, "fuzz/seeds/decode/ping", "one ", &[]);
    }

    #[test]
    fn the_map_shows_every_room_and_stays_short() {
        let mut tree = tree_of(MAP, "`net` moves bytes.\n");
        tree.packages =
            vec![Package { name: "net".to_owned(), dependencies: Vec::new(), has_tests_folder: false }];
        assert!(check_map(&tree).is_empty());
        tree.files[0].text = "line\n".repeat(LONGEST_MAP + 1);
        assert_eq!(check_map(&tree).len(), 2);
        tree.files.clear();
        assert_eq!(check_map(&tree).len(), 1);
    }
}
