//! A function fits on two screens and a file can be read at a sitting, unless a reason says why not.

use super::{Finding, Tree};

/// Lines of a function, braces included; more needs `// long: reason` at its head.
const FUNCTION: usize = 100;
/// The same in test code, where a table of cases is one function.
const TEST_FUNCTION: usize = 200;
/// Lines of a file, tests included.
const FILE: usize = 1_200;

pub(super) fn check_functions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.rust {
        for function in file.source.functions() {
            let head = function.lines.start;
            let excused = file.has_reason(head, "long") || file.has_reason(head + 1, "long");
            let limit = if file.is_test_line(head) { TEST_FUNCTION } else { FUNCTION };
            if function.lines.len() > limit && !excused {
                let problem = format!(
                    "`{}` has {} lines; {limit} are the limit without a `// long: reason`",
                    function.name,
                    function.lines.len()
                );
                findings.push(Finding::new(&file.path, head + 1, problem));
            }
        }
    }
    findings
}

pub(super) fn check_files(tree: &Tree) -> Vec<Finding> {
    tree.rust
        .iter()
        .map(|file| (file, file.text.lines().count()))
        .filter(|&(_, lines)| lines > FILE)
        .map(|(file, lines)| Finding::new(&file.path, 0, format!("{lines} lines; {FILE} are the limit")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_lines;
    use super::*;

    fn function_of(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_over_the_limit_needs_a_reason() {
        let path = "crates/net/src/lib.rs";
        check_lines(check_functions, path, &function_of(FUNCTION), &[]);
        check_lines(check_functions, path, &function_of(FUNCTION + 1), &[1]);
        let excused = format!("// long: one table, read from top to bottom\n{}", function_of(FUNCTION + 1));
        check_lines(check_functions, path, &excused, &[]);
        let silent = format!("// long:\n{}", function_of(FUNCTION + 1));
        check_lines(check_functions, path, &silent, &[2]);
    }

    #[test]
    fn a_test_may_be_a_table_of_cases() {
        let path = "crates/net/tests/proxy.rs";
        check_lines(check_functions, path, &function_of(TEST_FUNCTION), &[]);
        check_lines(check_functions, path, &function_of(TEST_FUNCTION + 1), &[1]);
    }

    #[test]
    fn the_reason_may_open_the_body() {
        let body = function_of(FUNCTION + 1).replacen("{\n", "{\n    // long: a table\n", 1);
        check_lines(check_functions, "crates/net/src/lib.rs", &body, &[]);
    }

    #[test]
    fn a_file_has_a_limit() {
        check_lines(check_files, "crates/net/src/lib.rs", &"//!\n".repeat(FILE), &[]);
        check_lines(check_files, "crates/net/src/lib.rs", &"//!\n".repeat(FILE + 1), &[0]);
    }
}
