//! The demo's child processes: this same program with other arguments.
//!
//! They have a process group of their own, so that Ctrl-C reaches only the demo, which then ends them in order; and
//! they are told by the kernel if the demo dies without having done that.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::config::Role;

/// How long a process may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long it may take to stop after SIGTERM; then it is killed. It gives itself 10 s.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// How often its state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Bytes of a log that are shown when its process failed.
const TAIL: u64 = 2_000;

/// A running child; killed if it is dropped before it was stopped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) role: Role,
    child: Child,
}

impl Process {
    /// Starts it. Call this from the thread that lives as long as the demo: the kernel takes that thread's end for the
    /// parent's.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn start(role: &Role) -> Result<Self, String> {
        let told = |error| format!("cannot start {}: {error}", role.name);
        let program = std::env::current_exe().map_err(told)?;
        let log = OpenOptions::new().create(true).append(true).open(&role.log).map_err(told)?;
        let child = Command::new(program)
            .arg("demo")
            .args(["--parent", &std::process::id().to_string(), "--serve"])
            .arg(&role.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(told)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(told)?;
        Ok(Self { role: role.clone(), child })
    }

    /// Waits for its `/readyz`.
    ///
    /// # Errors
    /// It ended, or was not ready in time: one sentence and the end of its log.
    pub(super) async fn ready(&mut self) -> Result<(), String> {
        let mut last = "no answer".to_owned();
        let ready = async {
            loop {
                if let Some(status) = self.ended() {
                    return Err(self.failed(&format!("ended with {status} instead of getting ready")));
                }
                match readyz(&self.role).await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                }
                sleep(LOOK_EVERY).await;
            }
        };
        match timeout(READY_WITHIN, ready).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = READY_WITHIN.as_secs();
                Err(self.failed(&format!("was not ready after {seconds} s ({last})")))
            }
        }
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What went wrong, with the end of its log.
    pub(super) fn failed(&self, what: &str) -> String {
        let Role { name, log, .. } = &self.role;
        format!("{name} {what}; its log {} ends with:\n{}", log.display(), tail(log))
    }

    /// Asks it to stop, and kills it if it takes too long.
    ///
    /// # Errors
    /// It did not stop cleanly: one sentence.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        let name = self.role.name;
        if self.ended().is_none() {
            self.signal(Signal::TERM);
        }
        let wait = async {
            loop {
                match self.ended() {
                    Some(status) => break status,
                    None => sleep(LOOK_EVERY).await,
                }
            }
        };
        match timeout(STOP_WITHIN, wait).await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failed(&format!("ended with {status}"))),
            Err(_) => {
                let seconds = STOP_WITHIN.as_secs();
                Err(format!("{name} did not stop within {seconds} s and was killed"))
            }
        }
    }

    /// An error means that it has just ended, which is what a signal would have asked for.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After `stop` it has ended and been waited for; both calls then do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks `GET /readyz`.
async fn readyz(role: &Role) -> Result<(), String> {
    let ask = async {
        let mut stream = TcpStream::connect(role.api).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", role.api);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = ask.await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer);
    let status = text.lines().next().unwrap_or_default().to_owned();
    if status.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(status) }
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("(it cannot be read: {error})"))
}

/// The child's side: asks the kernel to be told of the parent's death, then becomes `tidegate run`.
pub(super) fn serve(config: &Path, parent: i32) -> ExitCode {
    let told = |what: &str, error: std::io::Error| {
        eprintln!("tidegate: {what}: {error}");
        ExitCode::FAILURE
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        return told("cannot tie this process to its parent", error.into());
    }
    // The parent may have died before the line above; then nobody will tell.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return told("the demo is gone", std::io::Error::from(std::io::ErrorKind::NotFound));
    }
    match std::env::current_exe() {
        Ok(program) => {
            let error = Command::new(program).args(["run", "--config"]).arg(config).exec();
            told("cannot run", error)
        }
        Err(error) => told("cannot find this program", error),
    }
}
