//! What the service manager is told, sd_notify(3). Without `NOTIFY_SOCKET` in the environment nothing is sent.
//!
//! A message that can't be sent is a line in the log and no more: the service works without its manager.

use ::sd_notify::NotifyState;

/// The service works. Also after a reload.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// A reload of the configuration began; [`ready`] says when it is over.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // `Type=notify-reload` wants the moment, so that it can tell an old answer from the one it waits for.
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// The service is on its way down.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Another process is the service's main one from now on.
pub fn main_pid(pid: u32) {
    send(&[NotifyState::MainPid(pid)]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = ::sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
