//! The one socket option that no safe wrapper has.
#![allow(unsafe_code)] // setsockopt(2) takes a pointer and its length

use std::io;

use socket2::Socket;

/// Leaves the choice of the port from bind(2) to connect(2), ip(7). Works for IPv6 sockets too. Elsewhere than on
/// Linux nothing is set, and a source address has its ports once for all servers.
pub(super) fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    set(socket, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
    Ok(())
}

#[cfg(target_os = "linux")]
pub(super) fn set(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while `socket` is borrowed; the pointer is to a live integer of the length
    // that is given, and the kernel only reads it.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, (&raw const value).cast(), length)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
