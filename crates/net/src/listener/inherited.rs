//! Listening sockets that the service manager opened for us, sd_listen_fds(3).
//!
//! They are taken once, at the first question, and kept for the life of the process: a reload that drops a
//! listener and a later one that wants it again find it still there.
#![allow(unsafe_code)] // a descriptor's number comes from the environment; only we can say that it is ours

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;

use socket2::SockRef;

/// The passed listener of that address, if there is one.
pub(super) fn find(addr: SocketAddr) -> io::Result<Option<&'static TcpListener>> {
    static PASSED: OnceLock<Result<Vec<(SocketAddr, TcpListener)>, String>> = OnceLock::new();
    // The error is kept as its text: every listener of the process must hear of it.
    match PASSED.get_or_init(|| take().map_err(|error| error.to_string())) {
        Ok(passed) => Ok(passed.iter().find(|(bound, _)| *bound == addr).map(|(_, listener)| listener)),
        Err(error) => Err(io::Error::other(format!("sockets passed by the service manager: {error}"))),
    }
}

/// Takes over what is listed in `LISTEN_FDS`. What is no TCP listener is closed with a warning.
fn take() -> io::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut passed = Vec::new();
    for number in sd_notify::listen_fds()? {
        // SAFETY: the descriptor is open, sd_notify has just set a flag on it. It is ours alone: LISTEN_PID names
        // this process, the protocol gives it the descriptors from 3 on, and this function runs once (OnceLock)
        // and is the only one that takes them.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        let socket = SockRef::from(&fd);
        let tcp =
            socket.r#type().ok() == Some(socket2::Type::STREAM) && socket.is_listener().unwrap_or(false);
        let bound = socket.local_addr().ok().and_then(|addr| addr.as_socket());
        match bound {
            Some(bound) if tcp => {
                socket.set_nonblocking(true)?;
                passed.push((bound, TcpListener::from(fd)));
            }
            _ => tracing::warn!(fd = number, "a passed descriptor is no TCP listener and is closed"),
        }
    }
    Ok(passed)
}
