//! Bytes from a socket into a buffer that has a bound.

use std::io;

use tokio::net::TcpStream;

/// What one try to read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes were added; there may be more.
    Bytes(usize),
    /// Nothing is there now: wait until the socket is readable.
    Pending,
    /// The peer will send nothing more.
    Closed,
}

/// Reads once, without waiting, and adds at most `max` bytes (at least one is asked for) to the end of the buffer.
/// The buffer grows when it must and keeps its memory; `max` is the caller's bound.
///
/// # Errors
/// What the network said; the connection is of no more use then.
pub fn try_read_into(stream: &TcpStream, buffer: &mut Vec<u8>, max: usize) -> io::Result<Progress> {
    let max = max.max(1);
    buffer.reserve(max);
    let mut limited = bytes::BufMut::limit(buffer, max);
    match stream.try_read_buf(&mut limited) {
        Ok(0) => Ok(Progress::Closed),
        Ok(count) => Ok(Progress::Bytes(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Progress::Pending),
        Err(error) => Err(error),
    }
}

/// As [`try_read_into`], but waits until there is something: the number of bytes, 0 when the peer closed.
/// Cancel safe: what was read is in the buffer.
///
/// # Errors
/// What the network said.
pub async fn read_into(stream: &TcpStream, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
    loop {
        match try_read_into(stream, buffer, max)? {
            Progress::Bytes(count) => return Ok(count),
            Progress::Closed => return Ok(0),
            Progress::Pending => stream.readable().await?,
        }
    }
}
