//! Running other programs: each command line is shown before it runs, and a failure names it.

use std::process::{Command, Output, Stdio};

/// Runs `command` with our terminal; an error if it could not start or did not end with status 0.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let line = line_of(command);
    println!("$ {line}");
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_start(&line, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}`: {status}")) }
}

/// Runs `command` in silence and gives its standard output; on failure the error carries its standard error.
pub(crate) fn read(command: &mut Command) -> Result<String, String> {
    let line = line_of(command);
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(|error| cannot_start(&line, &error))?;
    if !status.success() {
        return Err(format!("`{line}`: {status}\n{}", String::from_utf8_lossy(&stderr).trim_end()));
    }
    String::from_utf8(stdout).map_err(|_| format!("`{line}` printed something that is not UTF-8"))
}

/// Whether `command` starts and ends with status 0. Its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The cargo that started us, so that a toolchain override holds for the whole run.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn cannot_start(line: &str, error: &std::io::Error) -> String {
    format!("`{line}` does not start: {error}")
}

/// The command as one could type it: the program's bare name and its arguments, quoted where a shell needs it.
fn line_of(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let words = command.get_args().map(|argument| quoted(&argument.to_string_lossy()));
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_could_type_it() {
        let mut command = Command::new("/some/where/cargo");
        command.args(["nextest", "run", "-E", "test(/(^|::)sim_/)"]);
        assert_eq!(line_of(&command), "cargo nextest run -E 'test(/(^|::)sim_/)'");
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_status() {
        assert_eq!(run(&mut Command::new("false")), Err("`false`: exit status: 1".to_owned()));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let refusal = read(&mut Command::new("tidegate-no-such-program")).unwrap_err();
        assert!(refusal.starts_with("`tidegate-no-such-program` does not start: "), "{refusal}");
    }
}
