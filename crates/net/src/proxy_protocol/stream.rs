//! The header of a live connection.

use std::io;

use tokio::net::TcpStream;

use super::{Header, Parsed, ProxyError, V2_MAX, parse};
use crate::read;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The first bytes are no PROXY header, though one is expected here.
    #[error("no PROXY header")]
    NotProxy,
    /// The bytes begin as a header but are none.
    #[error("a wrong PROXY header: {0}")]
    Malformed(#[from] ProxyError),
    /// The peer closed before the header was complete.
    #[error("closed before the PROXY header was complete")]
    Closed,
    /// What the network said.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header from the beginning of a connection. What was read beyond it is in `buffer` afterwards: the
/// client's first bytes, at most [`V2_MAX`]. The caller sets the time limit and has checked that the peer is a
/// [`TrustedProxies`](super::TrustedProxies) member.
///
/// # Errors
/// When there is no right header; `buffer` then holds what came.
pub async fn read_header(stream: &TcpStream, buffer: &mut Vec<u8>) -> Result<Header, ReadError> {
    read_header_with(buffer, async |buffer, room| read::read_into(stream, buffer, room).await).await
}

/// As [`read_header`], from anything: `read` adds at most so many bytes to the buffer and gives back how many, 0 at the
/// end.
///
/// # Errors
/// As [`read_header`].
pub async fn read_header_with(
    buffer: &mut Vec<u8>,
    read: impl AsyncFn(&mut Vec<u8>, usize) -> io::Result<usize>,
) -> Result<Header, ReadError> {
    loop {
        match parse(buffer)? {
            Parsed::Header(header, consumed) => {
                buffer.drain(..consumed);
                return Ok(header);
            }
            Parsed::NotProxy => return Err(ReadError::NotProxy),
            // The parser refuses what is longer than V2_MAX, so there is always room.
            Parsed::Incomplete(_) => {
                let room = V2_MAX.saturating_sub(buffer.len());
                if read(buffer, room).await? == 0 {
                    return Err(ReadError::Closed);
                }
            }
        }
    }
}
