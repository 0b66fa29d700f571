//! Programs that are started, watched and ended: servers under a guard, instruments that answer in one line of JSON.
//!
//! A process is ended by the id of the child that we started, whatever way we leave.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where servers run, and where the load comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    Server,
    Load,
    /// Both cores, where a server of two workers and its load share them.
    Everywhere,
}

impl Seat {
    const fn core(self) -> &'static str {
        match self {
            Self::Server => "0",
            Self::Load => "1",
            Self::Everywhere => "0,1",
        }
    }
}

/// What a program has before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    Usual,
    /// Where both sides are idle part of the time, this keeps other programs out of the latencies. Who takes more than 95 %
    /// of a core is stopped by the kernel for the rest of a second: 50 ms.
    RealTime,
}

/// A command line with its place.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    program: PathBuf,
    args: Vec<String>,
    seat: Seat,
    priority: Priority,
}

impl Launch {
    /// `line` is split at blanks; paths with blanks go through [`Self::arg`].
    pub(super) fn new(program: impl AsRef<Path>, seat: Seat, line: &str) -> Self {
        let args = line.split_whitespace().map(str::to_owned).collect();
        Self { program: program.as_ref().to_owned(), args, seat, priority: Priority::Usual }
    }

    /// More arguments, split at blanks.
    pub(super) fn args(mut self, line: &str) -> Self {
        self.args.extend(line.split_whitespace().map(str::to_owned));
        self
    }

    pub(super) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(super) const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", self.seat.core()]);
        match self.priority {
            Priority::Usual => {}
            Priority::RealTime => _ = command.args(["chrt", "-r", "1"]),
        }
        command.arg(&self.program).args(&self.args).stdin(Stdio::null());
        command
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts it and waits until something accepts connections on `port`. Its output goes to a file in `folder`.
    pub(super) fn start(launch: &Launch, folder: &Path, port: u16) -> Result<Self, String> {
        let name = launch.name();
        let log = folder.join(format!("{name}.log"));
        let told = |error: std::io::Error| format!("{name}: {error}");
        let output = File::create(&log).map_err(told)?;
        let child = launch
            .command()
            .stdout(output.try_clone().map_err(told)?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let mut server = Self { child, name, log };
        let deadline = now() + Duration::from_secs(15);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.has_ended() {
                return Err(format!("{} ended before it listened: {}", server.name, server.last_words()));
            }
            if now() > deadline {
                return Err(format!("{} does not listen on port {port}", server.name));
            }
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(300)); // what it does once after its start is not measured
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if it is gone although nobody ended it.
    pub(super) fn check_alive(&mut self) -> Result<(), String> {
        if self.has_ended() { Err(format!("{} died: {}", self.name, self.last_words())) } else { Ok(()) }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().last().unwrap_or("no word in its log").to_owned()
    }
}

impl Drop for Server {
    /// Asks it to end, and ends it if it does not within some seconds.
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let deadline = now() + Duration::from_secs(4);
        while asked.is_ok() && now() < deadline {
            if self.has_ended() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if self.child.kill().is_ok() {
            let _gone = self.child.wait();
        }
    }
}

/// Runs an instrument and reads the JSON of its last line.
pub(super) fn ask(launch: &Launch, folder: &Path, limit: Duration) -> Result<Value, String> {
    let name = launch.name();
    let told = |error: std::io::Error| format!("{name}: {error}");
    let path = folder.join(format!("{name}.out"));
    let mut output =
        File::options().create(true).truncate(true).read(true).write(true).open(path).map_err(told)?;
    let mut child = launch
        .command()
        .stdout(output.try_clone().map_err(told)?)
        .stderr(output.try_clone().map_err(told)?)
        .spawn()
        .map_err(|error| format!("{name} does not start: {error}"))?;
    let deadline = now() + limit;
    while child.try_wait().map_err(told)?.is_none() {
        if now() > deadline {
            child.kill().map_err(told)?;
            child.wait().map_err(told)?;
            return Err(format!("{name} had no answer after {} s", limit.as_secs()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut text = String::new();
    output.seek(SeekFrom::Start(0)).and_then(|_| output.read_to_string(&mut text)).map_err(told)?;
    answer(&name, &text)
}

/// The JSON object in the last line of `text`; one with an `error` is an error.
fn answer(name: &str, text: &str) -> Result<Value, String> {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    let value: Value = serde_json::from_str(line).map_err(|_| format!("{name} said: {line}"))?;
    match value.get("error").and_then(Value::as_str) {
        Some(error) => Err(format!("{name}: {error}")),
        None => Ok(value),
    }
}

/// Ports that nothing listens on, below those that the system gives to outgoing connections: a generator that opens
/// thousands of them must not take the next server's port.
pub(super) fn free_port() -> Result<u16, String> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no free port from {FIRST} to {}", FIRST + COUNT - 1))
}

/// Held while a run is measured, so that two benches on one machine take turns.
#[derive(Debug)]
pub(super) struct Quiet {
    _lock: File,
}

impl Quiet {
    /// Waits for it.
    pub(super) fn wait() -> Result<Self, String> {
        let path = std::env::temp_dir().join("bench.lock");
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        let lock = File::options().create(true).append(true).open(&path).map_err(told)?;
        lock.lock().map_err(told)?;
        Ok(Self { _lock: lock })
    }
}

#[allow(clippy::disallowed_methods, reason = "deadlines for programs that run on the wall's time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_pinned_and_goes_first_only_when_asked() {
        let line = |launch: &Launch| {
            let command = launch.command();
            let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
            args.join(" ")
        };
        let launch = Launch::new("/a/b", Seat::Load, "--x 1").arg("with blank");
        assert_eq!(line(&launch), "-c 1 /a/b --x 1 with blank");
        let before = |priority| line(&Launch::new("b", Seat::Server, "").priority(priority));
        assert_eq!(before(Priority::RealTime), "-c 0 chrt -r 1 b");
        assert_eq!(before(Priority::Usual), "-c 0 b");
    }

    #[test]
    fn the_last_line_is_the_answer() {
        assert_eq!(answer("i", "warming up\n{\"a\": 1}\n\n").unwrap()["a"], 1);
        assert_eq!(answer("i", "i: bad numbers\n").unwrap_err(), "i said: i: bad numbers");
        assert_eq!(answer("i", "").unwrap_err(), "i said: nothing");
        assert_eq!(answer("i", "{\"error\":\"setup\"}").unwrap_err(), "i: setup");
    }

    #[test]
    fn ports_are_free_and_differ() {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        assert_ne!(ports[0], ports[1]);
        assert!(ports.iter().all(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()));
    }

    /// A folder that is removed with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tidegate-bench-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_server_that_cannot_run_is_told_with_its_last_words() {
        let folder = Folder::new("server");
        let launch = Launch::new("ls", Seat::Server, "/no/such/folder");
        let told = Server::start(&launch, &folder.0, free_port().unwrap()).unwrap_err();
        assert!(
            told.starts_with("ls ended before it listened: ") && told.contains("/no/such/folder"),
            "{told}"
        );
    }

    #[test]
    fn a_server_is_ended_when_its_guard_goes() {
        let folder = Folder::new("guard");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap(); // stands for the port that the server opens
        let launch = Launch::new("sleep", Seat::Server, "60");
        let mut server = Server::start(&launch, &folder.0, taken.local_addr().unwrap().port()).unwrap();
        let process = PathBuf::from(format!("/proc/{}", server.pid()));
        assert!(process.exists() && server.check_alive().is_ok());
        drop(server);
        assert!(!process.exists());
    }

    #[test]
    fn an_instrument_that_hangs_is_ended() {
        let folder = Folder::new("instrument");
        let launch = Launch::new("sleep", Seat::Server, "60"); // core 0 is everywhere
        let told = ask(&launch, &folder.0, Duration::from_millis(50)).unwrap_err();
        assert_eq!(told, "sleep had no answer after 0 s");
    }
}
