//! The habits that no compiler checks, each as one rule over the workspace's packages and files.
//!
//! A rule is a pure function from the tree to findings, so its tests are snippets. Every rule can be satisfied
//! or, where judgement is needed, answered with a reason in the code. The rules run as a step of `cargo xtask
//! test` and as a test of this crate.

mod code;
mod figures;
mod layers;
mod lengths;
mod manifests;
mod modules;
mod names;
mod source;
mod text;

use crate::clauses;
use crate::workspace::{File, Package, Workspace};
pub(crate) use source::Source;

/// What the rules look at.
pub(crate) struct Tree {
    pub packages: Vec<Package>,
    /// Every text file of the workspace.
    pub files: Vec<File>,
    /// The Rust files among them, split into code and comments.
    pub rust: Vec<RustFile>,
}

/// One Rust file.
pub(crate) struct RustFile {
    pub path: String,
    pub text: String,
    pub source: Source,
}

/// One thing to mend.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub path: String,
    /// Counted from 1; 0 where the whole file is meant.
    pub line: usize,
    pub problem: String,
}

/// A rule with the name under which its findings are printed.
struct Rule {
    name: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

const RULES: &[Rule] = &[
    Rule { name: "layers", check: layers::check },
    Rule { name: "versions", check: manifests::check_versions },
    Rule { name: "packages", check: manifests::check_package_count },
    Rule { name: "vague name", check: names::check },
    Rule { name: "module note", check: modules::check_notes },
    Rule { name: "empty file", check: modules::check_empty },
    Rule { name: "dead file", check: modules::check_reached },
    Rule { name: "long function", check: lengths::check_functions },
    Rule { name: "long file", check: lengths::check_files },
    Rule { name: "leftover", check: code::check_leftovers },
    Rule { name: "unsafe", check: code::check_unsafe },
    Rule { name: "sleep in a test", check: code::check_sleeps },
    Rule { name: "clause id", check: clauses::check_ids },
    Rule { name: "clause table", check: clauses::check_table },
    Rule { name: "figure", check: figures::check },
    Rule { name: "machine path", check: text::check_machine_paths },
    Rule { name: "white space", check: text::check_white_space },
    Rule { name: "map", check: text::check_map },
];

/// `cargo xtask tidy`.
pub(crate) fn run(workspace: &Workspace) -> Result<(), String> {
    let tree = Tree::new(workspace)?;
    let mut findings = 0;
    for rule in RULES {
        for finding in (rule.check)(&tree) {
            findings += 1;
            println!("{}", finding.line_for(rule.name));
        }
    }
    println!("tidy: {} rules, {} files, {findings} findings", RULES.len(), tree.files.len());
    if findings == 0 { Ok(()) } else { Err(format!("{findings} things to mend (CONTRIBUTING.md says why)")) }
}

impl Tree {
    pub(crate) fn new(workspace: &Workspace) -> Result<Self, String> {
        Ok(Self::of(workspace.packages.clone(), workspace.files()?))
    }

    fn of(packages: Vec<Package>, files: Vec<File>) -> Self {
        let rust = files
            .iter()
            .filter(|file| file.path.ends_with(".rs"))
            .map(|file| RustFile::new(&file.path, &file.text))
            .collect();
        Self { packages, files, rust }
    }
}

impl RustFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), source: Source::new(text) }
    }

    /// Whether the whole file is test code, by its place.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Whether the line (from 0) is test code.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test() || self.source.test_lines().iter().any(|lines| lines.contains(&line))
    }

    /// Whether the comment `// WORD: reason` stands on the line (from 0) or in the comment lines just above it.
    pub(crate) fn has_reason(&self, line: usize, word: &str) -> bool {
        let comments: Vec<&str> = self.source.comments.lines().collect();
        let code: Vec<&str> = self.source.code.lines().collect();
        let mark = format!("// {word}: ");
        let gives = |at: usize| {
            comments
                .get(at)
                .and_then(|comment| comment.split_once(&mark))
                .is_some_and(|(_, reason)| !reason.trim().is_empty())
        };
        let is_note = |at: &usize| {
            let attribute_or_nothing =
                code.get(*at).is_some_and(|c| c.trim().is_empty() || c.trim().starts_with("#["));
            attribute_or_nothing && comments.get(*at).is_some_and(|comment| comment.trim().starts_with("//"))
        };
        gives(line) || (0..line).rev().take_while(is_note).any(gives)
    }
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, problem: problem.into() }
    }

    pub(crate) fn line_for(&self, rule: &str) -> String {
        let Self { path, line, problem } = self;
        if *line == 0 {
            format!("{path}: {rule}: {problem}")
        } else {
            format!("{path}:{line}: {rule}: {problem}")
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A tree of one file and no packages.
    pub(crate) fn tree_of(path: &str, text: &str) -> Tree {
        Tree::of(Vec::new(), vec![File { path: path.to_owned(), text: text.to_owned() }])
    }

    /// The lines on which `rule` finds something in one file.
    #[track_caller]
    pub(crate) fn check_lines(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str, lines: &[usize]) {
        let findings = rule(&tree_of(path, text));
        let found: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(found, lines, "findings in {text:?}: {findings:?}");
    }

    #[test]
    fn this_workspace_is_tidy() {
        run(&Workspace::open().unwrap()).unwrap();
    }

    #[test]
    fn a_finding_is_printed_with_its_place_and_rule() {
        assert_eq!(Finding::new("a.rs", 3, "is odd").line_for("odd"), "a.rs:3: odd: is odd");
        assert_eq!(Finding::new("a.rs", 0, "is odd").line_for("odd"), "a.rs: odd: is odd");
    }

    #[test]
    fn a_reason_stands_on_the_line_or_just_above_it() {
        let given = |text: &str, line| RustFile::new("a.rs", text).has_reason(line, "sleep");
        assert!(given("sleep(); // sleep: the peer counts seconds", 0));
        assert!(given("// sleep: the peer\n// counts seconds\nsleep();", 2));
        assert!(!given("sleep(); // sleep:  ", 0), "a reason is words");
        assert!(!given("// sleep: for another one\nlet a = 1;\nsleep();", 2));
        assert!(!given("sleep(); let a = \"// sleep: no\";", 0));
    }
}
