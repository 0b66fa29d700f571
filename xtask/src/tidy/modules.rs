//! Each module opens with a note on what it is for, and each file is reached from its crate.

use std::collections::HashSet;

use super::{Finding, RustFile, Tree};

/// The first line says what the module is for. Files of tests beside their subject need no other note than its own,
/// and a fuzz target is one line that names the function it feeds.
pub(super) fn check_notes(tree: &Tree) -> Vec<Finding> {
    let subject_speaks = |file: &RustFile| {
        let beside_subject =
            file.path.ends_with("/tests.rs") || file.path.contains("/src/") && file.is_test();
        beside_subject || file.path.starts_with("fuzz/targets/")
    };
    tree.rust
        .iter()
        .filter(|file| !subject_speaks(file) && !opens_with_note(&file.text))
        .map(|file| {
            Finding::new(&file.path, 1, "begins without `//!`: what is it for, what must it not know?")
        })
        .collect()
}

fn opens_with_note(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//! ") && line.len() > "//! ".len())
}

/// A file without code is a promise nobody keeps.
pub(super) fn check_empty(tree: &Tree) -> Vec<Finding> {
    tree.rust
        .iter()
        .filter(|file| file.source.code.trim().is_empty())
        .map(|file| Finding::new(&file.path, 0, "has no code; write it or remove it"))
        .collect()
}

/// A file that no `mod` names is not compiled, and rots.
pub(super) fn check_reached(tree: &Tree) -> Vec<Finding> {
    let mut reached = HashSet::new();
    for file in &tree.rust {
        let folder = folder_of_children(&file.path);
        for (_, name) in file.source.modules() {
            reached.insert(format!("{folder}/{name}.rs"));
            reached.insert(format!("{folder}/{name}/mod.rs"));
        }
    }
    tree.rust
        .iter()
        .filter(|file| !is_root(&file.path) && !reached.contains(&file.path))
        .map(|file| Finding::new(&file.path, 0, "no `mod` names this file, so it is not compiled"))
        .collect()
}

/// Where the modules declared in this file lie.
fn folder_of_children(path: &str) -> &str {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if is_root(path) || name == "mod.rs" { folder } else { path.trim_end_matches(".rs") }
}

/// Whether cargo itself finds the file: the roots of libraries, programs, tests, examples, benches and fuzz targets.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "src", "lib.rs" | "main.rs"] | [.., "build.rs"] => true,
        [.., "src", "bin", _] | ["fuzz", "targets", _] => true,
        ["crates" | "fuzz" | "tools", .., "tests" | "examples" | "benches", _] => !parts.contains(&"src"),
        ["crates", _, "tests" | "examples" | "benches", _, "main.rs"] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_lines, tree_of};
    use super::*;
    use crate::workspace::File;

    #[test]
    fn a_module_opens_with_a_note() {
        check_lines(check_notes, "crates/net/src/peek.rs", "//! Looks without taking.\n", &[]);
        check_lines(check_notes, "crates/net/src/lib.rs", "#![allow(a)]\n\n//! Sockets.\n", &[]);
        check_lines(check_notes, "crates/net/src/peek.rs", "use std::fmt;\n", &[1]);
        check_lines(check_notes, "crates/net/src/peek.rs", "//!\nuse std::fmt;\n", &[1]);
        check_lines(check_notes, "crates/tidegate/tests/it/sticky.rs", "use std::fmt;\n", &[1]);
    }

    #[test]
    fn tests_beside_their_subject_need_no_note() {
        check_lines(check_notes, "crates/net/src/peek/tests.rs", "use super::*;\n", &[]);
        check_lines(check_notes, "crates/net/src/tests/peek.rs", "use super::*;\n", &[]);
        check_lines(check_notes, "fuzz/targets/peek.rs", "#![no_main]\n\nfuzz_target!(peek);\n", &[]);
    }

    #[test]
    fn a_file_has_code() {
        check_lines(check_empty, "crates/net/src/peek/tests.rs", "//! Tests of peeking.\n", &[0]);
        check_lines(
            check_empty,
            "crates/net/src/peek/tests.rs",
            "//! Tests of peeking.\nuse super::*;\n",
            &[],
        );
    }

    #[test]
    fn roots_are_found_by_cargo_itself() {
        for path in [
            "crates/net/src/lib.rs",
            "xtask/src/main.rs",
            "crates/net/src/bin/probe.rs",
            "crates/net/tests/contract.rs",
            "crates/tidegate/tests/it/main.rs",
            "fuzz/targets/decode.rs",
            "tools/mqload/tests/load.rs",
        ] {
            check_lines(check_reached, path, "", &[]);
        }
    }

    #[test]
    fn a_file_without_a_mod_is_dead() {
        let mut tree = tree_of("crates/net/src/tcp.rs", "");
        assert_eq!(check_reached(&tree).len(), 1);
        tree.rust.push(RustFile::new("crates/net/src/lib.rs", "pub mod tcp;"));
        assert!(check_reached(&tree).is_empty());
    }

    #[test]
    fn children_lie_beside_mod_rs_or_under_the_name() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let tree = Tree::of(
            Vec::new(),
            vec![
                file("crates/net/src/lib.rs", "mod tcp; mod tls;"),
                file("crates/net/src/tcp/mod.rs", "mod read;"),
                file("crates/net/src/tcp/read.rs", ""),
                file("crates/net/src/tls.rs", "mod tests;"),
                file("crates/net/src/tls/tests.rs", ""),
                file("crates/tidegate/tests/it/main.rs", "mod sticky;"),
                file("crates/tidegate/tests/it/sticky.rs", ""),
            ],
        );
        assert!(check_reached(&tree).is_empty(), "{:?}", check_reached(&tree));
    }
}
