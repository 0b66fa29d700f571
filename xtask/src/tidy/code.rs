//! Words that must not stand in code or comments: things left for later, `unsafe` in the wrong room, sleeps.

use super::source::{line_of, words};
use super::{Finding, Tree};

/// Marks of unfinished work, in comments.
const MARKS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];
/// What unfinished work looks like in code.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// The rooms that may hold `unsafe`, each block with its note.
const UNSAFE_ROOMS: &[&str] = &["crates/net/", "crates/engine/"];
/// The same of the instruments: the one file of each that speaks to the kernel.
const UNSAFE_FILES: &[&str] = &["tools/mqload/src/net.rs", "tools/lbbench/src/sockets.rs"];
/// A sleep, as tests write it.
const SLEEPS: &[&str] = &["thread::sleep", "time::sleep", "sleep_ms"];

pub(super) fn check_leftovers(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        let marks = words(&file.source.comments).filter(|(_, word)| MARKS.contains(word));
        let code = UNFINISHED.iter().flat_map(|&call| file.source.code.match_indices(call));
        for (at, what) in marks.chain(code) {
            let problem = format!("`{what}`: finish it, or file an issue and say here what holds today");
            findings.push(Finding::new(&file.path, line_of(&file.text, at) + 1, problem));
        }
    }
    findings
}

pub(super) fn check_unsafe(tree: &Tree) -> Vec<Finding> {
    let allowed =
        |path: &str| UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)) || UNSAFE_FILES.contains(&path);
    let mut findings = Vec::new();
    for file in tree.rust.iter().filter(|file| !allowed(&file.path)) {
        for (at, _) in words(&file.source.code).filter(|&(_, word)| word == "unsafe") {
            let problem = "`unsafe` lives in `net` and `engine` only";
            findings.push(Finding::new(&file.path, line_of(&file.source.code, at) + 1, problem));
        }
    }
    findings
}

/// A test waits for an event with a deadline. Where time itself is what is tested, `// sleep: reason` says so.
pub(super) fn check_sleeps(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        for (at, _) in SLEEPS.iter().flat_map(|&call| file.source.code.match_indices(call)) {
            let line = line_of(&file.source.code, at);
            let imported =
                file.source.code.lines().nth(line).is_some_and(|code| code.trim().starts_with("use "));
            if file.is_test_line(line) && !imported && !file.has_reason(line, "sleep") {
                let problem = "wait for an event with a deadline, or give a `// sleep: reason`";
                findings.push(Finding::new(&file.path, line + 1, problem));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_lines;
    use super::*;

    const PATH: &str = "crates/broker/src/will.rs";

    #[test]
    fn unfinished_work_is_found_in_comments_and_code() {
        check_lines(check_leftovers, PATH, "// TODO later\nfn f() {\n    todo!()\n}\n", &[1, 3]);
        check_lines(
            check_leftovers,
            PATH,
            "/// FIXME\n#[test]\n#[ignore = \"slow\"]\nfn f() { dbg!(1); }\n",
            &[1, 4, 3],
        );
        check_lines(check_leftovers, PATH, "let name = \"TODO\"; // todos are fine as a word\n", &[]);
    }

    #[test]
    fn unsafe_has_two_rooms() {
        check_lines(check_unsafe, PATH, "fn f() {\n    unsafe { g() }\n}\n", &[2]);
        check_lines(check_unsafe, PATH, "#![deny(unsafe_code)] // unsafe is elsewhere\n", &[]);
        check_lines(check_unsafe, "crates/net/src/splice.rs", "unsafe { g() }\n", &[]);
        check_lines(check_unsafe, "tools/mqload/src/net.rs", "unsafe { g() }\n", &[]);
        check_lines(check_unsafe, "tools/mqload/src/world.rs", "unsafe { g() }\n", &[1]);
    }

    #[test]
    fn a_test_does_not_sleep_without_a_reason() {
        let test = "#[cfg(test)]\nmod tests {\n    fn f() { std::thread::sleep(d); }\n}\n";
        check_lines(check_sleeps, PATH, test, &[3]);
        check_lines(
            check_sleeps,
            "crates/tidegate/tests/it/sticky.rs",
            "tokio::time::sleep(d).await;\n",
            &[1],
        );
        let excused = "// sleep: keep alive is counted in whole seconds\ntokio::time::sleep(d).await;\n";
        check_lines(check_sleeps, "crates/tidegate/tests/it/sticky.rs", excused, &[]);
    }

    #[test]
    fn the_product_may_wait() {
        check_lines(check_sleeps, PATH, "async fn f() { tokio::time::sleep(d).await }\n", &[]);
    }
}
