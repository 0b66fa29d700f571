//! A child process with a guard.

use std::io::Write;
use std::panic::Location;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::lines::Lines;
use super::wait::{DEADLINE, within};

/// A running program. It ends with this value, and when the test fails it tells what it said.
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Standard output, unless [`Process::start_with`] took it.
    pub(crate) out: Lines,
    /// Standard error.
    pub(crate) err: Lines,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it without input.
    #[track_caller]
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command.stdin(Stdio::null()))
    }

    /// Starts it with the input that the command says.
    #[track_caller]
    pub(crate) fn start_with(name: &str, command: &mut Command) -> Self {
        let at = Location::caller();
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|error| {
                panic!("cannot start {program} ({error}): `cargo xtask test --only setup` ({at})")
            });
        let out = child.stdout.take().map(Lines::read).unwrap_or_default();
        let err = child.stderr.take().map(Lines::read).unwrap_or_default();
        Self { name: name.to_owned(), child, out, err, ended: None }
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its input goes; closed when dropped.
    pub(crate) fn input(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("the command has a pipe as its input")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{} has ended", self.name);
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a signal to our own child");
    }

    /// Whether it has ended, and how.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child");
        }
        self.ended
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.end_within(DEADLINE)
    }

    /// Waits for its end, for so long.
    #[track_caller]
    pub(crate) fn end_within(&mut self, time: Duration) -> ExitStatus {
        let name = self.name.clone();
        within(time, || self.has_ended()).unwrap_or_else(|| panic!("{name} does not end within {time:?}"))
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        if self.has_ended().is_none() {
            self.child.kill().expect("our own child");
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let said = [&self.out, &self.err].map(Lines::all).concat().join("\n");
            eprintln!("---- {} said ----\n{said}\n---- end of {} ----", self.name, self.name);
        }
    }
}

/// Runs a program to its end and gives back everything.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    run_with(command, b"")
}

/// The same with input.
#[track_caller]
pub(crate) fn run_with(command: &mut Command, input: &[u8]) -> Output {
    let at = Location::caller();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(
            |error| panic!("cannot start {program} ({error}): `cargo xtask test --only setup` ({at})"),
        );
    // It may be so short that it never reads.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let (done, over) = std::sync::mpsc::sync_channel::<()>(1);
    let watch = std::thread::spawn(move || {
        let late = over.recv_timeout(DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            // Its parent has not waited for it yet, so the id is still its own.
            let _ = kill_process(pid, Signal::KILL);
        }
        late
    });
    let output = child.wait_with_output().expect("our own child");
    drop(done);
    assert!(!watch.join().expect("a watch"), "{program} does not end within {DEADLINE:?} ({at})");
    output
}

/// What was printed, as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}
