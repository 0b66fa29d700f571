//! Which clauses of the MQTT specifications are cited, in code and in tests, and which test proves each.
//!
//! A clause is cited on the line that enforces it and in the test that proves it, as `[MQTT-3.1.2-22]`. Ids are
//! those of MQTT 5.0; `v3` before one means the same id in MQTT 3.1.1, which can be another rule. `specification` has the
//! numbers of all clauses, `table` reads and checks docs/clauses.md, where each has its proof.

mod specification;
mod table;

use std::collections::BTreeMap;

use crate::tidy::{Finding, RustFile, Tree};
use crate::workspace::Workspace;

/// A clause, ordered as the specification orders its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Clause {
    v3: bool,
    section: [u16; 3],
    statement: u16,
}

/// How often a clause is cited.
#[derive(Debug, Default, PartialEq, Eq)]
struct Citations {
    code: u32,
    tests: u32,
}

/// Something that begins like a clause id: the clause, or the text that is none.
type Candidate<'a> = Result<Clause, &'a str>;

const PREFIX: &str = "MQTT-";

/// `cargo xtask clauses [--untested]`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let only_untested = match arguments {
        [] => false,
        [flag] if flag == "--untested" => true,
        _ => return Err("`clauses` takes `--untested` or nothing".to_owned()),
    };
    let tree = Tree::new(workspace)?;
    let cited = count(tree.rust.iter().filter(|file| file.path.starts_with("crates/")));
    print!("{}", report(&cited, only_untested));
    if let Some(table) = tree.files.iter().find(|file| file.path == table::PATH) {
        for (name, totals) in ["MQTT 5.0", "MQTT 3.1.1"].iter().zip(table::totals(&table.text)) {
            let table::Totals { proven, without } = totals;
            println!(
                "{name}: {} clauses, {proven} proven by tests, {without} do not apply",
                proven + without
            );
        }
    }
    let findings = [check_ids(&tree), check_table(&tree)].concat();
    for finding in &findings {
        println!("{}", finding.line_for("clauses"));
    }
    if findings.is_empty() { Ok(()) } else { Err(format!("{} things to mend", findings.len())) }
}

/// The table of clauses and proofs says what is so.
pub(crate) fn check_table(tree: &Tree) -> Vec<Finding> {
    table::check(tree)
}

/// Ids that look like clauses and are none: a citation nobody can follow.
pub(crate) fn check_ids(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust.iter().filter(|file| file.path.starts_with("crates/")) {
        for (at, line) in file.text.lines().enumerate() {
            let problem = |candidate| match candidate {
                Err(bad) => Some(format!("`{bad}` is no clause id; they look like `[MQTT-3.1.2-22]`")),
                Ok(clause) if specification::has(clause) => None,
                Ok(clause) => Some(format!("the specification has no `{clause}`")),
            };
            let problems = candidates(line).filter_map(problem);
            findings.extend(problems.map(|problem| Finding::new(&file.path, at + 1, problem)));
        }
    }
    findings
}

fn count<'a>(files: impl Iterator<Item = &'a RustFile>) -> BTreeMap<Clause, Citations> {
    let mut cited = BTreeMap::<Clause, Citations>::new();
    for file in files {
        let tests = file.source.test_lines();
        for (at, line) in file.text.lines().enumerate() {
            let in_test = file.is_test() || tests.iter().any(|lines| lines.contains(&at));
            for clause in candidates(line).filter_map(Result::ok) {
                let citations = cited.entry(clause).or_default();
                *(if in_test { &mut citations.tests } else { &mut citations.code }) += 1;
            }
        }
    }
    cited
}

fn report(cited: &BTreeMap<Clause, Citations>, only_untested: bool) -> String {
    let mut lines = vec![format!("{:<20} {:>5} {:>6}", "clause", "code", "tests")];
    for (clause, Citations { code, tests }) in cited {
        if !only_untested || *tests == 0 {
            lines.push(format!("{:<20} {code:>5} {tests:>6}", clause.to_string()));
        }
    }
    let tested = cited.values().filter(|citations| citations.tests > 0).count();
    let enforced = cited.values().filter(|citations| citations.code > 0).count();
    lines.push(format!("{} clauses cited: {enforced} in code, {tested} in tests\n", cited.len()));
    lines.join("\n")
}

/// Everything in `line` that begins like a clause id. `MQTT-SN` and other words are none.
fn candidates(line: &str) -> impl Iterator<Item = Candidate<'_>> {
    line.match_indices(PREFIX).filter_map(|(at, _)| {
        let after = &line[at + PREFIX.len()..];
        let id = after
            .split(|c: char| !(c.is_alphanumeric() || c == '.' || c == '-'))
            .next()?
            .trim_end_matches('.');
        if !id.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let v3 = line[..at].ends_with("v3 ");
        let whole = &line[at..at + PREFIX.len() + id.len()];
        Some(Clause::parse(id, v3).ok_or(whole))
    })
}

impl Clause {
    /// Reads `3.1.2-22`.
    fn parse(id: &str, v3: bool) -> Option<Self> {
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty();
            plain.then(|| digits.parse().ok()).flatten()
        };
        let (section, statement) = id.split_once('-')?;
        let mut parts = section.split('.').map(number);
        let section = [parts.next()??, parts.next()??, parts.next()??];
        let whole = parts.next().is_none();
        whole.then_some(Self { v3, section, statement: number(statement)? })
    }
}

impl std::fmt::Display for Clause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [chapter, section, part] = self.section;
        let version = if self.v3 { "v3 " } else { "" };
        write!(f, "{version}{PREFIX}{chapter}.{section}.{part}-{}", self.statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::check_lines;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let found: Vec<String> = candidates(line)
            .map(|found| found.map_or_else(|bad| format!("bad {bad}"), |id| id.to_string()))
            .collect();
        assert_eq!(found, expected, "in {line:?}");
    }

    #[test]
    fn clauses_are_read_wherever_they_stand() {
        check("// Says no [MQTT-3.1.2-22], [MQTT-4.7.3-1].", &["MQTT-3.1.2-22", "MQTT-4.7.3-1"]);
        check("malformed(\"v3 MQTT-3.8.3-4\", why)", &["v3 MQTT-3.8.3-4"]);
        check("as MQTT-2.2.1-3. And so", &["MQTT-2.2.1-3"]);
    }

    #[test]
    fn other_words_are_no_clauses() {
        check("MQTT-SN, MQTT-NEXT and MQTT 5.0", &[]);
    }

    #[test]
    fn ids_nobody_could_look_up_are_told() {
        check("[MQTT-3.1.2]", &["bad MQTT-3.1.2"]);
        check("[MQTT-3.1-2]", &["bad MQTT-3.1-2"]);
        check("[MQTT-3.1.2.11-2]", &["bad MQTT-3.1.2.11-2"]);
        check("[MQTT-3.1.2-22-24]", &["bad MQTT-3.1.2-22-24"]);
        check("[MQTT-3.1.2-x]", &["bad MQTT-3.1.2-x"]);
    }

    #[test]
    fn a_clause_that_no_specification_has_is_told() {
        let text = "// [MQTT-3.1.2-22] [v3 MQTT-1.5.3-1]\n// [MQTT-1.5.3-1]\n// [v3 MQTT-9.9.9-9]\n";
        check_lines(check_ids, "crates/mqtt/src/a.rs", text, &[2, 3]);
    }

    #[test]
    fn citations_in_code_and_in_tests_are_counted_apart() {
        let text =
            "// [MQTT-3.1.2-22]\n#[cfg(test)]\nmod tests {\n    // [MQTT-3.1.2-22] [MQTT-3.1.2-9]\n}\n";
        let cited = count(std::iter::once(&RustFile::new("crates/mqtt/src/a.rs", text)));
        let counts: Vec<_> = cited.iter().map(|(clause, c)| (clause.to_string(), c.code, c.tests)).collect();
        assert_eq!(counts, [("MQTT-3.1.2-9".to_owned(), 0, 1), ("MQTT-3.1.2-22".to_owned(), 1, 1)]);
    }

    #[test]
    fn the_report_can_be_narrowed_to_what_no_test_cites() {
        let text = "// [MQTT-3.1.2-22] and [MQTT-3.1.3-1]";
        let test = RustFile::new("crates/mqtt/tests/a.rs", "// [MQTT-3.1.3-1]");
        let cited = count([&RustFile::new("crates/mqtt/src/a.rs", text), &test].into_iter());
        let narrowed = report(&cited, true);
        assert!(narrowed.contains("MQTT-3.1.2-22") && !narrowed.contains("MQTT-3.1.3-1"), "{narrowed}");
        assert!(narrowed.ends_with("2 clauses cited: 2 in code, 1 in tests\n"), "{narrowed}");
    }
}
