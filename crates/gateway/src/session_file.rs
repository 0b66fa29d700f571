//! The session log as a file: one line for each connection at its end, and for each that was refused.
//!
//! Workers hand over what is known; a thread of its own makes lines of it and writes them in batches. Every reload opens
//! the file anew by its name, so that it can be moved away before (logrotate: `postrotate` with SIGHUP).
//!
//! Bound: [`WAITING`] lines. Rule at the bound: a line that finds no room is lost, and counted; so are those that can't be
//! written (no space left). A worker never waits. Must not know: sockets, configurations' grammar.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use runtime::clock::{Clock, rfc3339};

use crate::config::LineFormat;
use crate::limits::Seldom;
use crate::session_log::{Id, Who};

/// Lines that may wait for the disk.
const WAITING: usize = 16 * 1024;
/// Bytes that are written at once, about.
const BATCH: usize = 64 * 1024;

/// What happened to a connection.
pub(crate) struct Line {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) listener: Arc<str>,
    pub(crate) peer: SocketAddr,
    /// Why it ended or was refused.
    pub(crate) reason: &'static str,
    /// `None`: it was refused.
    pub(crate) session: Option<Ended>,
}

/// What is known of a connection that had a server.
pub(crate) struct Ended {
    pub(crate) id: Id,
    pub(crate) who: Who,
    pub(crate) upstream: Arc<str>,
    pub(crate) server: Arc<str>,
    pub(crate) server_address: SocketAddr,
    pub(crate) chosen_by: &'static str,
    pub(crate) without_key: Option<&'static str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) duration_ms: u64,
}

enum Message {
    Line(Box<Line>),
    Reopen(File),
    Flush(SyncSender<()>),
}

/// A session log in a file. What was handed over is written even when this is dropped.
pub(crate) struct SessionFile {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    reports: Seldom,
    pub(crate) path: PathBuf,
    pub(crate) format: LineFormat,
}

/// Opens a file to write behind its end, and makes it where it is not there: for its owner, and its group to read, since
/// it names people's devices.
///
/// # Errors
/// It cannot be opened, or it is a pipe: opening one waits for its reader, and nobody may wait here.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe and not a file"));
    }
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl SessionFile {
    /// Starts the thread that writes.
    pub(crate) fn start(
        path: PathBuf,
        file: File,
        format: LineFormat,
        clock: Clock,
        lost: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let (messages, received) = sync_channel(WAITING);
        let writer = Writer {
            file,
            format,
            batch: Vec::new(),
            lines: 0,
            lost: Arc::clone(&lost),
            reports: Seldom::default(),
            clock,
        };
        thread::Builder::new().name("session-log".to_owned()).spawn(move || writer.run(&received))?;
        Ok(Self { messages, lost, reports: Seldom::default(), path, format })
    }

    /// Hands a line over, if there is room.
    pub(crate) fn write(&self, line: Line) {
        let at = line.at;
        if self.messages.try_send(Message::Line(Box::new(line))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            if self.reports.now(at) {
                tracing::warn!(file = %self.path.display(), "the session log can't keep up: lines are lost");
            }
        }
    }

    /// From now on lines go to this file. Waits while lines that came before have no room.
    pub(crate) fn reopen(&self, file: File) {
        // Without its thread there is nothing to reopen.
        let _ = self.messages.send(Message::Reopen(file));
    }

    /// Waits until what was handed over is written, or the time is over.
    pub(crate) fn flush(&self, time: Duration) {
        let (done, written) = sync_channel(1);
        match self.messages.try_send(Message::Flush(done)) {
            Ok(()) => drop(written.recv_timeout(time)),
            // There is no room: the disk does not take it, and this would wait for the same.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

struct Writer {
    file: File,
    format: LineFormat,
    batch: Vec<u8>,
    /// In the batch.
    lines: u64,
    lost: Arc<AtomicU64>,
    reports: Seldom,
    clock: Clock,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            self.take(message);
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            self.write();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => {
                render(&line, self.format, &mut self.batch);
                self.lines += 1;
                if self.batch.len() >= BATCH {
                    self.write();
                }
            }
            Message::Reopen(file) => {
                self.write();
                self.file = file;
            }
            Message::Flush(done) => {
                self.write();
                // Who asked may not wait any more.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self) {
        if let Err(error) = self.file.write_all(&self.batch) {
            self.lost.fetch_add(self.lines, Ordering::Relaxed);
            if self.reports.now(self.clock.unix_millis()) {
                tracing::warn!(%error, "the session log can't be written: lines are lost");
            }
        }
        self.batch.clear();
        self.lines = 0;
    }
}

/// A value of a line.
enum Value<'a> {
    Text(&'a str),
    Shown(String),
    Number(u64),
    /// Left out.
    Absent,
}

fn values(line: &Line) -> Vec<(&'static str, Value<'_>)> {
    let text = |text: Option<&'static str>| text.map_or(Value::Absent, Value::Text);
    let mut values = vec![("time", Value::Shown(rfc3339(line.at)))];
    let Some(session) = &line.session else {
        values.extend([
            ("event", Value::Text("refused")),
            ("peer", Value::Shown(line.peer.to_string())),
            ("listener", Value::Text(&line.listener)),
            ("reason", Value::Text(line.reason)),
        ]);
        return values;
    };
    let who = &session.who;
    values.extend([
        ("event", Value::Text("session")),
        ("id", Value::Shown(session.id.to_string())),
        ("clientid", Value::Text(&who.clientid)),
        ("username", who.username.as_deref().map_or(Value::Absent, Value::Text)),
        ("proto_ver", Value::Number(who.proto_ver.into())),
        ("peer", Value::Shown(line.peer.to_string())),
        ("via", who.via.as_ref().map_or(Value::Absent, |via| Value::Shown(via.to_string()))),
        ("listener", Value::Text(&line.listener)),
        ("upstream", Value::Text(&session.upstream)),
        ("server", Value::Text(&session.server)),
        ("server_address", Value::Shown(session.server_address.to_string())),
        ("chosen_by", Value::Text(session.chosen_by)),
        ("without_key", text(session.without_key)),
        ("bytes_in", Value::Number(session.bytes_in)),
        ("bytes_out", Value::Number(session.bytes_out)),
        ("duration_ms", Value::Number(session.duration_ms)),
        ("reason", Value::Text(line.reason)),
    ]);
    values
}

/// Writes a line with its end: a JSON object, or `time event key=value ...` with values in quotes where they need them.
fn render(line: &Line, format: LineFormat, out: &mut Vec<u8>) {
    let begin = out.len();
    for (name, value) in values(line) {
        let text = match &value {
            Value::Text(text) => Some(*text),
            Value::Shown(text) => Some(text.as_str()),
            Value::Number(_) => None,
            Value::Absent => continue,
        };
        let number = if let Value::Number(number) = value { number } else { 0 };
        let first = out.len() == begin;
        // Writing to memory can't fail.
        let _ = match format {
            LineFormat::Json => {
                let separator = if first { "{" } else { "," };
                match text {
                    Some(text) => write!(out, "{separator}\"{name}\":{}", quoted(text)),
                    None => write!(out, "{separator}\"{name}\":{number}"),
                }
            }
            LineFormat::Text => {
                let separator = if first { "" } else { " " };
                match text {
                    Some(text) if matches!(name, "time" | "event") => write!(out, "{separator}{text}"),
                    Some(text) if is_plain(text) => write!(out, "{separator}{name}={text}"),
                    Some(text) => write!(out, "{separator}{name}={}", quoted(text)),
                    None => write!(out, "{separator}{name}={number}"),
                }
            }
        };
    }
    if format == LineFormat::Json {
        out.push(b'}');
    }
    out.push(b'\n');
}

/// As a string of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(clientid: &str, username: Option<&str>) -> Line {
        let peer = "203.0.113.7:4711".parse().unwrap();
        Line {
            at: 1_795_000_000_123,
            listener: "tcp://127.0.0.1:1880".into(),
            peer,
            reason: "client_closed",
            session: Some(Ended {
                id: Id { boot: 0xAB, worker: 1, sequence: 7 },
                who: Who {
                    clientid: clientid.into(),
                    username: username.map(Into::into),
                    proto_ver: 5,
                    peer,
                    via: Some(Box::new("10.0.0.1:80".parse().unwrap())),
                },
                upstream: "brokers".into(),
                server: "emqx 1".into(),
                server_address: "10.0.0.172:1883".parse().unwrap(),
                chosen_by: "hash",
                without_key: None,
                bytes_in: 12,
                bytes_out: 3_456,
                duration_ms: 789,
            }),
        }
    }

    fn rendered(line: &Line, format: LineFormat) -> String {
        let mut out = Vec::new();
        render(line, format, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_says_everything_about_a_connection() {
        assert_eq!(
            rendered(&line("car 7", None), LineFormat::Text),
            "2026-11-18T14:26:40.123Z session id=ab-1-7 clientid=\"car 7\" proto_ver=5 peer=203.0.113.7:4711 \
             via=10.0.0.1:80 listener=tcp://127.0.0.1:1880 upstream=brokers server=\"emqx 1\" \
             server_address=10.0.0.172:1883 chosen_by=hash bytes_in=12 bytes_out=3456 duration_ms=789 \
             reason=client_closed\n"
                .replace("2026-11-18T14:26:40.123Z", &rfc3339(1_795_000_000_123))
        );
        let refused = Line { session: None, reason: "access_denied", ..line("", None) };
        assert_eq!(
            rendered(&refused, LineFormat::Json),
            format!(
                "{{\"time\":\"{}\",\"event\":\"refused\",\"peer\":\"203.0.113.7:4711\",\
                 \"listener\":\"tcp://127.0.0.1:1880\",\"reason\":\"access_denied\"}}\n",
                rfc3339(1_795_000_000_123)
            )
        );
    }

    proptest! {
        /// Whatever a device calls itself: one line, which reads back.
        #[test]
        fn no_name_breaks_a_line(clientid in ".{0,20}", username in prop::option::of("[\\n\\r\\t\" =\\\\a-c\u{0}\u{85}]{0,8}")) {
            let line = line(&clientid, username.as_deref());
            let json = rendered(&line, LineFormat::Json);
            let back: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back["clientid"].as_str(), Some(&*clientid));
            prop_assert_eq!(back["username"].as_str(), username.as_deref());
            for text in [json, rendered(&line, LineFormat::Text)] {
                prop_assert_eq!(text.bytes().position(|byte| byte == b'\n'), Some(text.len() - 1));
                prop_assert!(!text.contains('\r'));
            }
        }
    }

    #[test]
    fn lines_are_written_in_order_and_go_on_in_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, lost) = (folder.path().join("gateway.log"), Arc::new(AtomicU64::new(0)));
        let file = open(&path).unwrap();
        let log =
            SessionFile::start(path.clone(), file, LineFormat::Json, Clock::system(), Arc::clone(&lost))
                .unwrap();
        (0..100).for_each(|n| log.write(line(&format!("v{n}"), None)));
        log.flush(Duration::from_secs(10));
        std::fs::rename(&path, folder.path().join("old.log")).unwrap();
        log.reopen(open(&path).unwrap());
        (100..110).for_each(|n| log.write(line(&format!("v{n}"), None)));
        log.flush(Duration::from_secs(10));
        let ids = |name: &str| -> Vec<String> {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            let id = |line: &str| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["clientid"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            text.lines().map(id).collect()
        };
        assert_eq!(ids("old.log"), (0..100).map(|n| format!("v{n}")).collect::<Vec<_>>());
        assert_eq!(ids("gateway.log"), (100..110).map(|n| format!("v{n}")).collect::<Vec<_>>());
        assert_eq!(lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_the_disk_does_not_take_is_counted() {
        let full = OpenOptions::new().write(true).open("/dev/full");
        let Ok(file) = full else { return };
        let lost = Arc::new(AtomicU64::new(0));
        let log = SessionFile::start(
            "/dev/full".into(),
            file,
            LineFormat::Text,
            Clock::system(),
            Arc::clone(&lost),
        )
        .unwrap();
        (0..7).for_each(|n| log.write(line(&format!("v{n}"), None)));
        log.flush(Duration::from_secs(10));
        assert_eq!(lost.load(Ordering::Relaxed), 7);
    }
}
