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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn reading_adds_at_most_what_is_asked_and_knows_silence_from_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let work = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let mut buffer = b"kept".to_vec();
            assert_eq!(try_read_into(&server, &mut buffer, 5).unwrap(), Progress::Pending);
            client.write_all(b"0123456").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(read_into(&server, &mut buffer, 5).await.unwrap(), 5);
            assert_eq!(buffer, b"kept01234");
            // Asking for nothing would look like the end.
            assert_eq!(try_read_into(&server, &mut buffer, 0).unwrap(), Progress::Bytes(1));
            assert_eq!(read_into(&server, &mut buffer, 100).await.unwrap(), 1);
            assert_eq!(read_into(&server, &mut buffer, 100).await.unwrap(), 0);
            assert_eq!(try_read_into(&server, &mut buffer, 100).unwrap(), Progress::Closed);
            assert_eq!(buffer, b"kept0123456");
        };
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time") });
    }
}
