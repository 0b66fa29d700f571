//! `tidegate import`: reads the files of another balancer, prints the `[gateway]` that gives the same service.
//!
//! What the files mean is for [`gateway::import`]; here are files, globs, standard output and exit codes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gateway::import::{Effect, ImportError, Imported, MAX_BYTES, Note};

/// Most files that one `include` may match.
const MAX_MATCHES: usize = 1_000;

/// Read another load balancer's configuration and print the [gateway] that gives the same service
///
/// What is not carried over as it was written is told on standard error with file, line and reason, and stands as a
/// comment at its place in the TOML: "not needed" (the service is the same), "differs" (it is carried over, and users can
/// notice), "left out" (the service lacks it).
///
/// Exit status: 0 the TOML was written; 1 the file cannot be read, its own program would refuse it, nothing in it can be
/// carried over, or, with --strict, something differs or is left out; 2 a mistake in the command line.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum From {
    /// An nginx.conf with a stream { } block, or what stands inside of one
    Nginx(FileArgs),
    /// An haproxy.cfg with frontend, backend or listen sections in TCP mode
    Haproxy(FileArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct FileArgs {
    /// The file; - is standard input. What it includes is looked for from its folder, as its own program does
    file: PathBuf,
    /// Write the TOML to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file of --output where it is there already
    #[arg(long, requires = "output")]
    force: bool,
    /// Fail, and write nothing, when something differs or is left out
    #[arg(long)]
    strict: bool,
    /// Tell only what differs or is left out
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    let (From::Nginx(file) | From::Haproxy(file)) = &args.from;
    match convert(&args.from, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn convert(from: &From, args: &FileArgs) -> Result<(), String> {
    let (name, text) = open(&args.file)?;
    let folder = args.file.parent().unwrap_or_else(|| Path::new(""));
    let imported = match from {
        From::Nginx(_) => gateway::import::nginx(&name, &text, &mut |pattern| find(folder, pattern)),
        From::Haproxy(_) => gateway::import::haproxy(&name, &text, &|name| std::env::var(name).ok()),
    };
    let imported = imported.map_err(|error| {
        if let ImportError::Nothing { notes } = &error {
            tell(notes, args.quiet);
        }
        match error {
            ImportError::Nothing { .. } => format!("{name}: {error}"),
            ImportError::Syntax { .. } => error.to_string(),
        }
    })?;
    tell(&imported.notes, args.quiet);
    if args.strict && !imported.is_faithful() {
        return Err(format!("{}; nothing is written (--strict)", summary(&imported)));
    }
    write(args.output.as_deref(), args.force, &imported.toml)?;
    eprintln!("{}", summary(&imported));
    Ok(())
}

fn tell(notes: &[Note], quiet: bool) {
    for note in notes.iter().filter(|note| !quiet || note.effect != Effect::Same) {
        eprintln!("{note}");
    }
}

/// One line: what came out of it.
fn summary(imported: &Imported) -> String {
    let count = |effect: Effect| imported.notes.iter().filter(|note| note.effect == effect).count();
    let (out, differs, same) = (count(Effect::LeftOut), count(Effect::Differs), count(Effect::Same));
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let carried =
        format!("{}, {}", plural(imported.listeners, "listener"), plural(imported.upstreams, "upstream"));
    if out + differs == 0 {
        return format!("{carried}: the same service ({same} not needed)");
    }
    format!("{carried}: {out} left out, {differs} different, {same} not needed")
}

/// A file's name and text; bytes that are no UTF-8 are in comments and names only, they are replaced.
fn open(file: &Path) -> Result<(String, String), String> {
    if file == Path::new("-") {
        return read(std::io::stdin().lock())
            .map(|text| ("standard input".to_owned(), text))
            .map_err(|error| format!("cannot read standard input: {error}"));
    }
    let name = file.display().to_string();
    let text = std::fs::File::open(file).and_then(read);
    text.map(|text| (name.clone(), text)).map_err(|error| format!("cannot read {name}: {error}"))
}

fn read(from: impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The files of an `include`, in the order of their names. A name without a pattern has to be there.
fn find(folder: &Path, pattern: &str) -> Result<Vec<(String, String)>, String> {
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let whole = folder.join(pattern);
    let has_pattern = pattern.contains(['*', '?', '[']);
    if !has_pattern {
        return open(&whole).map(|file| vec![file]);
    }
    // the folder is no pattern, whatever is in its name
    let whole = if Path::new(pattern).is_absolute() {
        pattern.to_owned()
    } else {
        Path::new(&glob::Pattern::escape(&folder.display().to_string())).join(pattern).display().to_string()
    };
    let paths = glob::glob_with(&whole, options).map_err(|error| format!("no pattern of files: {error}"))?;
    let mut files = Vec::new();
    for path in paths {
        let path =
            path.map_err(|error| format!("cannot read {}: {}", error.path().display(), error.error()))?;
        if files.len() == MAX_MATCHES {
            return Err(format!("more than {MAX_MATCHES} files"));
        }
        files.push(open(&path)?);
    }
    Ok(files)
}

fn write(output: Option<&Path>, force: bool, toml: &str) -> Result<(), String> {
    match output {
        Some(file) => {
            // what is not to be replaced is not opened either: nobody can put a file there in between
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).create_new(!force);
            let written = options.open(file).and_then(|mut file| file.write_all(toml.as_bytes()));
            written.map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    format!("{} is there already; --force replaces it", file.display())
                }
                _ => format!("cannot write {}: {error}", file.display()),
            })
        }
        None => match std::io::stdout().lock().write_all(toml.as_bytes()) {
            // `tidegate import ... | head` has seen enough
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(format!("cannot write to standard output: {error}"))
            }
            _ => Ok(()),
        },
    }
}
