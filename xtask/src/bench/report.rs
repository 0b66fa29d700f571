//! docs/BENCHMARKS.md: words that people write, and between two marks for each suite what was measured last.

use std::fs;

use crate::workspace::Workspace;

use super::machine::Facts;

const DOCUMENT: &str = "docs/BENCHMARKS.md";

/// Puts `tables` and where they come from between the marks of `suite`.
pub(super) fn write(workspace: &Workspace, suite: &str, facts: &Facts, tables: &str) -> Result<(), String> {
    let path = workspace.root.join(DOCUMENT);
    let text = fs::read_to_string(&path).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let text = replaced(&text, suite, &format!("{}\n\n{tables}", facts.line()))?;
    fs::write(&path, text).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    println!("{DOCUMENT} has them");
    Ok(())
}

/// `text` with `measured` between the marks of `suite`.
pub(super) fn replaced(text: &str, suite: &str, measured: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {suite}: begin -->\n"), format!("<!-- {suite}: end -->"));
    let missing = || format!("{DOCUMENT} has no place for it: `{}` and `{end}`", begin.trim_end());
    let (head, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{head}{begin}\n{}\n\n{end}{tail}", measured.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_the_marks_stays() {
        let text =
            "words\n<!-- a: begin -->\nold\n<!-- a: end -->\nmore\n<!-- b: begin -->\n<!-- b: end -->\n";
        let once = replaced(text, "a", "new\n").unwrap();
        assert_eq!(
            once,
            "words\n<!-- a: begin -->\n\nnew\n\n<!-- a: end -->\nmore\n<!-- b: begin -->\n<!-- b: end -->\n"
        );
        assert_eq!(replaced(&once, "a", "new").unwrap(), once);
    }

    #[test]
    fn a_document_without_marks_is_not_touched() {
        assert!(replaced("words\n", "a", "new").unwrap_err().contains("<!-- a: begin -->"));
    }

    #[test]
    fn the_document_has_a_place_for_every_suite() {
        let text = fs::read_to_string(Workspace::open().unwrap().root.join(DOCUMENT)).unwrap();
        for suite in super::super::Suite::ALL {
            replaced(&text, suite.name(), "new").unwrap();
        }
    }
}
