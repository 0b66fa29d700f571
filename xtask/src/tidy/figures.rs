//! No two documents tell two numbers: README and docs/SCALING.md say what docs/BENCHMARKS.md gives.

use super::{Finding, Tree};
use crate::bench::derived;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let text_of =
        |path: &str| tree.files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let differences = derived::differences(text_of).into_iter();
    differences.map(|one| Finding::new(one.document, one.line, one.problem)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_lines;
    use super::*;

    #[test]
    fn a_tree_without_measurements_has_nothing_to_compare() {
        check_lines(check, "README.md", "words\n", &[]);
    }

    #[test]
    fn tables_that_lack_a_row_are_found() {
        check_lines(check, "docs/BENCHMARKS.md", "words\n", &[0]);
    }
}
