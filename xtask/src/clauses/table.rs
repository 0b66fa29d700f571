//! The table in `docs/clauses.md`: what each clause demands, and the tests that prove it or why none can.
//!
//! A row is `| [MQTT-3.1.2-22] | demand | proof |`. The proof names tests in back quotes, `broker::name_of_the_test` or,
//! where a crate has two of that name, `broker::file::name_of_the_test`; a row of the codec's fixtures is named the same
//! way, by its name. A clause that no test can prove begins its proof with `Does not apply: ` and says why. A proof is
//! believed when the test is there and cites the clause.

use std::collections::{BTreeMap, BTreeSet};

use super::{Clause, candidates, specification};
use crate::tidy::{Finding, RustFile, Tree};

pub(super) const PATH: &str = "docs/clauses.md";

/// Words of a demand: the specification's own sentences stay where they are.
const LONGEST_DEMAND: usize = 15;
/// Words of a reason for doing without a test.
const SHORTEST_REASON: usize = 4;
const NO_TEST: &str = "Does not apply: ";

/// How many clauses of a specification have which kind of proof.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub proven: usize,
    pub without: usize,
}

/// Something that can prove a clause: a test function, or a row of fixtures.
struct Proof<'a> {
    package: &'a str,
    /// The path within the package, without `src`, `tests` and the ending.
    modules: Vec<&'a str>,
    name: String,
    cites: BTreeSet<Clause>,
}

struct Row<'a> {
    line: usize,
    clause: Clause,
    demand: &'a str,
    proof: &'a str,
}

/// The rule: the table has every clause once and in order, and what it says is so.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(table) = tree.files.iter().find(|file| file.path == PATH) else {
        return vec![Finding::new(PATH, 0, "is missing")];
    };
    let proofs = proofs(tree);
    let rows = rows(&table.text);
    let mut findings = check_order(&rows);
    for row in &rows {
        let problems = check_demand(row.demand).into_iter().chain(check_proof(row, &proofs));
        findings.extend(
            problems.map(|problem| Finding::new(PATH, row.line, format!("{}: {problem}", row.clause))),
        );
    }
    findings
}

/// What the table says of MQTT 5.0 and of MQTT 3.1.1.
pub(super) fn totals(text: &str) -> [Totals; 2] {
    let mut totals = [Totals::default(), Totals::default()];
    for row in rows(text) {
        let of = &mut totals[usize::from(row.clause.v3)];
        *(if row.proof.starts_with(NO_TEST) { &mut of.without } else { &mut of.proven }) += 1;
    }
    totals
}

fn rows(text: &str) -> Vec<Row<'_>> {
    text.lines()
        .enumerate()
        .filter_map(|(at, line)| {
            let cells = line.strip_prefix("| [")?.strip_suffix(" |")?;
            let (id, rest) = cells.split_once("] | ")?;
            let (demand, proof) = rest.split_once(" | ")?;
            let clause = candidates(id).next()?.ok()?;
            Some(Row { line: at + 1, clause, demand: demand.trim(), proof: proof.trim() })
        })
        .collect()
}

fn check_order(rows: &[Row<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut lines = BTreeMap::<Clause, usize>::new();
    for row in rows {
        if let Some(first) = lines.insert(row.clause, row.line) {
            findings.push(Finding::new(
                PATH,
                row.line,
                format!("{} stands in line {first} already", row.clause),
            ));
        } else if !specification::has(row.clause) {
            findings.push(Finding::new(PATH, row.line, format!("the specification has no {}", row.clause)));
        }
    }
    for pair in rows.windows(2) {
        if pair[1].clause < pair[0].clause {
            let problem = format!("{} stands after {}", pair[1].clause, pair[0].clause);
            findings.push(Finding::new(PATH, pair[1].line, problem));
        }
    }
    let missing = specification::all().filter(|clause| !lines.contains_key(clause));
    findings.extend(missing.map(|clause| Finding::new(PATH, 0, format!("{clause} has no row"))));
    findings
}

fn check_demand(demand: &str) -> Option<String> {
    match demand.split_whitespace().count() {
        0 => Some("says nothing of what it demands".to_owned()),
        words if words > LONGEST_DEMAND => {
            Some(format!("takes {words} words to say what it demands; {LONGEST_DEMAND} are the limit"))
        }
        _ => None,
    }
}

fn check_proof(row: &Row<'_>, proofs: &[Proof<'_>]) -> Vec<String> {
    if let Some(reason) = row.proof.strip_prefix(NO_TEST) {
        let short = reason.split_whitespace().count() < SHORTEST_REASON;
        return if short { vec!["does not apply, and does not say why".to_owned()] } else { Vec::new() };
    }
    let names: Vec<&str> = row.proof.split('`').skip(1).step_by(2).collect();
    if names.is_empty() {
        return vec![format!("names no test, and does not begin with \"{NO_TEST}\"")];
    }
    let problem = |name: &&str| {
        let found: Vec<_> = proofs.iter().filter(|proof| proof.is_called(name)).collect();
        if found.is_empty() {
            Some(format!("`{name}` is no test"))
        } else if found.iter().any(|proof| proof.cites.contains(&row.clause)) {
            None
        } else {
            Some(format!("`{name}` does not cite it"))
        }
    };
    names.iter().filter_map(problem).collect()
}

fn proofs(tree: &Tree) -> Vec<Proof<'_>> {
    let mut proofs = Vec::new();
    for file in &tree.rust {
        let Some((package, modules)) = place(&file.path) else { continue };
        let lines: Vec<&str> = file.text.lines().collect();
        let mut add = |name: String, lines: &[&str]| {
            let cites = lines.iter().flat_map(|line| candidates(line)).filter_map(Result::ok).collect();
            proofs.push(Proof { package, modules: modules.clone(), name, cites });
        };
        if modules.contains(&"fixtures") {
            for (at, name) in fixtures(&lines) {
                add(name.to_owned(), &lines[above(&lines, at)..=end_of_fixture(&lines, at)]);
            }
        } else {
            for (name, span) in tests(file, &lines) {
                add(name, &lines[span]);
            }
        }
    }
    proofs
}

/// The test functions of a file, each with its notes, attributes and body.
fn tests(file: &RustFile, lines: &[&str]) -> Vec<(String, std::ops::Range<usize>)> {
    let of_test = |head: usize| {
        let from = above(lines, head);
        let is_test = lines[from..head].iter().any(|line| {
            let line = line.trim();
            line.starts_with("#[test]") || line.starts_with("#[tokio::test")
        });
        is_test.then_some(from)
    };
    file.source
        .functions()
        .into_iter()
        .filter_map(|f| of_test(f.lines.start).map(|from| (f.name, from..f.lines.end)))
        .collect()
}

/// The first of the notes and attributes that stand directly above line `at`.
fn above(lines: &[&str], at: usize) -> usize {
    let belongs = |line: &str| line.starts_with("//") || line.starts_with("#[");
    at - lines[..at].iter().rev().take_while(|line| belongs(line.trim())).count()
}

/// The rows of a table of fixtures: the line where each begins, and its name.
fn fixtures<'a>(lines: &[&'a str]) -> Vec<(usize, &'a str)> {
    let mut rows = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let line = line.trim();
        let opening = |line: &str| matches!(line, "(" | "same(" | "other(");
        let (begin, text) = if at > 0 && opening(lines[at - 1].trim()) {
            (at - 1, Some(line))
        } else {
            (at, ["same(", "other(", "("].iter().find_map(|call| line.strip_prefix(call)))
        };
        let name = text.and_then(|text| text.strip_prefix('"')?.split_once('"'));
        if let Some((name, _)) = name {
            rows.push((begin, name));
        }
    }
    rows
}

fn end_of_fixture(lines: &[&str], begin: usize) -> usize {
    let more = lines[begin..].iter().take_while(|line| !line.trim().ends_with("),")).count();
    (begin + more).min(lines.len() - 1)
}

/// `crates/broker/src/tests/will.rs`: the package `broker` and the modules `tests::will`.
fn place(path: &str) -> Option<(&str, Vec<&str>)> {
    let (package, rest) = path.strip_prefix("crates/")?.split_once('/')?;
    let rest = rest.strip_prefix("src/").or_else(|| rest.strip_prefix("tests/"))?;
    Some((package, rest.strip_suffix(".rs")?.split('/').collect()))
}

impl Proof<'_> {
    fn is_called(&self, name: &str) -> bool {
        let parts: Vec<&str> = name.split("::").collect();
        let [package, modules @ .., name] = parts.as_slice() else { return false };
        *package == self.package && *name == self.name && self.modules.ends_with(modules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::tree_of;
    use crate::workspace::File;

    fn tree(row: &str, path: &str, text: &str) -> Tree {
        let mut tree = tree_of(path, text);
        tree.files.push(File { path: PATH.to_owned(), text: format!("{row}\n") });
        tree
    }

    /// What is said of a table of this one row, beside all the rows that are missing.
    #[track_caller]
    fn check_row(row: &str, source: &str, expected: &[&str]) {
        let tree = tree(row, "crates/broker/src/tests/will.rs", source);
        let findings = check(&tree);
        let said: Vec<_> =
            findings.iter().filter(|f| f.line > 0).map(|finding| finding.problem.as_str()).collect();
        assert_eq!(said, expected);
    }

    const TEST: &str = "/// [MQTT-3.1.2-8]\n#[test]\nfn a_will() {\n    // [v3 MQTT-3.1.2-8]\n}\n";

    #[test]
    fn a_row_is_believed_when_its_test_is_there_and_cites_it() {
        for proof in ["`broker::a_will`", "`broker::will::a_will`", "`broker::tests::will::a_will` and more"]
        {
            check_row(&format!("| [MQTT-3.1.2-8] | Wills are published | {proof} |"), TEST, &[]);
            check_row(&format!("| [v3 MQTT-3.1.2-8] | Wills are published | {proof} |"), TEST, &[]);
        }
    }

    #[test]
    fn a_test_that_is_not_there_or_proves_something_else_is_told() {
        check_row(
            "| [MQTT-3.1.2-8] | Wills are published | `broker::a_wish`, `mqtt::a_will`, `broker::life::a_will` |",
            TEST,
            &[
                "MQTT-3.1.2-8: `broker::a_wish` is no test",
                "MQTT-3.1.2-8: `mqtt::a_will` is no test",
                "MQTT-3.1.2-8: `broker::life::a_will` is no test",
            ],
        );
        check_row(
            "| [MQTT-3.1.2-9] | Wills are whole | `broker::a_will` |",
            TEST,
            &["MQTT-3.1.2-9: `broker::a_will` does not cite it"],
        );
        let helper = TEST.replace("#[test]\n", "");
        check_row(
            "| [MQTT-3.1.2-8] | Wills are published | `broker::a_will` |",
            &helper,
            &["MQTT-3.1.2-8: `broker::a_will` is no test"],
        );
    }

    #[test]
    fn who_does_without_a_test_says_why() {
        check_row("| [MQTT-3.1.2-8] | Wills | Does not apply: we send none at all |", "", &[]);
        check_row(
            "| [MQTT-3.1.2-8] | Wills | Does not apply: no |",
            "",
            &["MQTT-3.1.2-8: does not apply, and does not say why"],
        );
        check_row(
            "| [MQTT-3.1.2-8] | Wills | it is well known |",
            "",
            &["MQTT-3.1.2-8: names no test, and does not begin with \"Does not apply: \""],
        );
    }

    #[test]
    fn a_demand_is_said_in_few_words() {
        let long = "word ".repeat(LONGEST_DEMAND + 1);
        check_row(
            &format!("| [MQTT-3.1.2-8] | {long} | Does not apply: we send none at all |"),
            "",
            &["MQTT-3.1.2-8: takes 16 words to say what it demands; 15 are the limit"],
        );
    }

    #[test]
    fn clauses_that_are_there_twice_or_nowhere_or_out_of_order_are_told() {
        let row = |id: &str| format!("| [{id}] | Wills | Does not apply: we send none at all |");
        let rows =
            [row("MQTT-3.1.2-9"), row("MQTT-3.1.2-8"), row("MQTT-3.1.2-8"), row("MQTT-3.1.2-31")].join("\n");
        check_row(
            &rows,
            "",
            &[
                "MQTT-3.1.2-8 stands in line 2 already",
                "the specification has no MQTT-3.1.2-31",
                "MQTT-3.1.2-8 stands after MQTT-3.1.2-9",
            ],
        );
        let missing = check(&tree(&rows, "a.rs", ""));
        assert_eq!(missing.iter().filter(|f| f.problem.ends_with("has no row")).count(), 251 + 141 - 2);
    }

    #[test]
    fn rows_of_fixtures_are_proofs() {
        let source = "const A: &[Row] = &[\n    // [v3 MQTT-3.1.2-8]\n    (\"short_one\", V5, \"MQTT-3.1.2-9\"),\n    \
                      // [MQTT-3.1.2-7]\n    (\n        \"long_one\",\n        V5,\n        \"MQTT-3.1.2-10\",\n    ),\n    \
                      same(\"good_one\", V5, \"00\"),\n];\n";
        let tree = tree("", "crates/mqtt/tests/suite/fixtures/invalid.rs", source);
        let found: Vec<_> = proofs(&tree)
            .into_iter()
            .map(|proof| {
                assert!(proof.is_called(&format!("mqtt::{}", proof.name)));
                (proof.name, proof.cites.iter().map(Clause::to_string).collect::<Vec<_>>().join(" "))
            })
            .collect();
        let expected = [
            ("short_one", "MQTT-3.1.2-9 v3 MQTT-3.1.2-8"),
            ("long_one", "MQTT-3.1.2-7 MQTT-3.1.2-10"),
            ("good_one", ""),
        ];
        assert_eq!(found, expected.map(|(name, cites)| (name.to_owned(), cites.to_owned())));
    }

    #[test]
    fn what_the_table_says_is_counted_by_version() {
        let text = "| [MQTT-3.1.2-8] | Wills | `a::b` |\n| [MQTT-3.1.2-9] | Wills | Does not apply: x |\n\
                    | [v3 MQTT-3.1.2-8] | Wills | `a::b` |\n";
        assert_eq!(totals(text), [Totals { proven: 1, without: 1 }, Totals { proven: 1, without: 0 }]);
    }
}
