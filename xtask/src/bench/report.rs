//! docs/BENCHMARKS.md: words that people write, and between two marks for each suite what was measured last.

use std::fs;
use std::ops::Range;

use crate::workspace::Workspace;

use super::machine::Facts;

pub(super) const DOCUMENT: &str = "docs/BENCHMARKS.md";

/// Puts `tables` and where they come from between the marks of `suite`.
pub(super) fn write(workspace: &Workspace, suite: &str, facts: &Facts, tables: &str) -> Result<(), String> {
    let path = workspace.root.join(DOCUMENT);
    let text = fs::read_to_string(&path).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let text = replaced(&text, suite, &format!("{}\n\n{tables}", facts.line()))
        .map_err(|mark| format!("{DOCUMENT} has no place for it: {mark}"))?;
    fs::write(&path, text).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    println!("{DOCUMENT} has them");
    Ok(())
}

/// `text` with `block` between the marks of `name`; an error is the mark that is not there.
pub(super) fn replaced(text: &str, name: &str, block: &str) -> Result<String, String> {
    let place = between(text, name)?;
    Ok(format!("{}\n{}\n\n{}", &text[..place.start], block.trim(), &text[place.end..]))
}

/// Where in `text` the block of `name` stands: between its marks.
pub(super) fn between(text: &str, name: &str) -> Result<Range<usize>, String> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let start = text.find(&begin).ok_or_else(|| begin.trim_end().to_owned())? + begin.len();
    let length = text[start..].find(&end).ok_or(end)?;
    Ok(start..start + length)
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
