//! What other documents say of the tables of docs/BENCHMARKS.md: computed from them, written between marks, and compared
//! by `cargo xtask tidy`, so that no two documents tell two numbers.

use std::fs;

use super::report::{DOCUMENT as MEASURED, between, replaced};
use super::tables::cells;
use super::{readme, scaling};
use crate::workspace::Workspace;

const README: &str = "README.md";
const SCALING: &str = "docs/SCALING.md";

/// What must stand between two marks of a document.
struct Block {
    document: &'static str,
    mark: &'static str,
    text: String,
}

/// A line that says something else than the tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) document: &'static str,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) problem: String,
}

/// `cargo xtask figures`: writes the blocks.
pub(crate) fn run(workspace: &Workspace) -> Result<(), String> {
    let read = |name: &str| {
        fs::read_to_string(workspace.root.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let blocks = blocks(&read(MEASURED)?)?;
    for document in [README, SCALING] {
        let mut text = read(document)?;
        for block in blocks.iter().filter(|block| block.document == document) {
            text = replaced(&text, block.mark, &block.text)
                .map_err(|mark| format!("{document} has no place for it: {mark}"))?;
        }
        fs::write(workspace.root.join(document), text).map_err(|error| format!("{document}: {error}"))?;
        println!("{document} has them");
    }
    Ok(())
}

/// Where documents differ from the tables; `text_of` gives a document by its path.
pub(crate) fn differences<'a>(text_of: impl Fn(&str) -> Option<&'a str>) -> Vec<Difference> {
    let problem = |document, line, problem| Difference { document, line, problem };
    let Some(measured) = text_of(MEASURED) else { return Vec::new() };
    let blocks = match blocks(measured) {
        Ok(blocks) => blocks,
        Err(reason) => return vec![problem(MEASURED, 0, reason)],
    };
    let mut differences = Vec::new();
    for Block { document, mark, text } in blocks {
        let Some(whole) = text_of(document) else { continue };
        match between(whole, mark) {
            Err(mark) => differences.push(problem(document, 0, format!("has no {mark}"))),
            Ok(place) => {
                let first = whole[..place.start].lines().count() + 2; // behind the mark and an empty line
                let told = compared(whole[place].trim(), &text);
                differences.extend(told.into_iter().map(|(at, told)| problem(document, first + at, told)));
            }
        }
    }
    differences
}

fn blocks(measured: &str) -> Result<Vec<Block>, String> {
    let within = |reason| format!("{MEASURED} has {reason}");
    let block = |document| move |(mark, text)| Block { document, mark, text };
    let readme = readme::blocks(measured).map_err(within)?.into_iter().map(block(README));
    let scaling = scaling::tables(measured).map_err(within)?.into_iter().map(block(SCALING));
    Ok(readme.chain(scaling).collect())
}

/// What is said and what should be, by line from 0: cell by cell in a table.
fn compared(told: &str, computed: &str) -> Vec<(usize, String)> {
    const HINT: &str = "`cargo xtask figures` writes it";
    let (told, computed): (Vec<_>, Vec<_>) = (told.lines().collect(), computed.trim().lines().collect());
    if told.len() != computed.len() {
        return vec![(0, format!("{} lines where {} belong; {HINT}", told.len(), computed.len()))];
    }
    let mut differences = Vec::new();
    for (at, (told, computed)) in told.iter().zip(&computed).enumerate() {
        if told == computed {
            continue;
        }
        let both = cells(told).zip(cells(computed)).filter(|(told, computed)| told != computed);
        let each: Vec<_> =
            both.map(|(told, computed)| format!("says {told:?}, {MEASURED} {computed:?}")).collect();
        let each = if each.is_empty() { "is out of line".to_owned() } else { each.join(", ") };
        differences.push((at, format!("{each}; {HINT}")));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cell_that_differs_is_told_with_both_numbers() {
        let (told, computed) = ("| a | b |\n|---|---|\n| 1 | 2 |", "| a | b |\n|---|---|\n| 1 | 3 |\n");
        let expected = "says \"2\", docs/BENCHMARKS.md \"3\"; `cargo xtask figures` writes it";
        assert_eq!(compared(told, computed), [(2, expected.to_owned())]);
        assert!(compared(computed.trim(), computed).is_empty());
        assert_eq!(compared("| a | b |", computed)[0].0, 0);
    }

    #[test]
    fn a_changed_ratio_of_the_readme_is_found_at_its_line() {
        let workspace = Workspace::open().unwrap();
        let read = |name: &str| fs::read_to_string(workspace.root.join(name)).unwrap();
        let (measured, scaling) = (read(MEASURED), read(SCALING));
        let readme = read(README);
        let line = readme.lines().position(|line| line.contains("broker, of Mosquitto's")).unwrap();
        let wrong: Vec<_> = readme
            .lines()
            .enumerate()
            .map(|(at, text)| if at == line { text.replace("1/", "1/9") } else { text.to_owned() })
            .collect();
        let wrong = wrong.join("\n");
        let found = differences(|name| match name {
            README => Some(wrong.as_str()),
            SCALING => Some(&scaling),
            _ => Some(&measured),
        });
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].document, found[0].line), (README, line + 1));
        assert!(found[0].problem.contains("says \"1/9"), "{found:?}");
    }

    #[test]
    fn tables_without_a_row_that_is_asked_for_are_told() {
        let found = differences(|_| Some("words\n"));
        assert!(found[0].problem.contains("10x10_q0"), "{found:?}");
    }
}
