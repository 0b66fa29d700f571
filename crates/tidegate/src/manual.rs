//! `tidegate completion` and `tidegate man`: what shells and `man` want to know of the command line, made from its
//! definition.
//!
//! Must not know: what any command does.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

/// Print a script that completes the command line: `tidegate completion bash > /etc/bash_completion.d/tidegate`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Print the manual page: `tidegate man | man -l -`, `tidegate man ctl clients | man -l -`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// The page of this command instead of the whole program's
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    of: Vec<String>,
    /// Write the pages of all commands into this folder: tidegate.1, tidegate-run.1, ...
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Runs `tidegate completion`.
pub(crate) fn completion(args: &CompletionArgs, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tidegate", &mut script);
    told(print(&script))
}

/// Runs `tidegate man`.
pub(crate) fn man(args: &ManArgs, command: Command) -> ExitCode {
    let command = whole(command);
    let done = match &args.output {
        Some(folder) => write_all(&command, folder)
            .map_err(|error| format!("cannot write to {}: {error}", folder.display())),
        None => find(&command, &args.of).and_then(|command| {
            page(&command).and_then(|page| print(&page)).map_err(|error| error.to_string())
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("tidegate man: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn told(printed: io::Result<()>) -> ExitCode {
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints; a reader that has seen enough is no error.
fn print(bytes: &[u8]) -> io::Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// The command with everything that clap adds at the last moment, under names that pages have: `tidegate-ctl-clients`.
fn whole(mut command: Command) -> Command {
    // a command named help would have a page for every other command
    command = command.disable_help_subcommand(true);
    command.build();
    command
}

/// The command of these words.
fn find(command: &Command, words: &[String]) -> Result<Command, String> {
    let mut at = command;
    for word in words {
        at = at.find_subcommand(word).ok_or_else(|| {
            let known: Vec<_> = shown(at).map(Command::get_name).collect();
            match known.is_empty() {
                true => format!("{} has no commands of its own", at.get_name()),
                false => format!("there is no command {word}; {} has {}", at.get_name(), known.join(", ")),
            }
        })?;
    }
    Ok(at.clone())
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    Ok(page)
}

/// Writes the pages of a command and of those below it.
fn write_all(command: &Command, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    std::fs::write(folder.join(format!("{name}.1")), page(command)?)?;
    shown(command).try_for_each(|command| write_all(command, folder))
}
