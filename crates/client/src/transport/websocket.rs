//! A WebSocket under a connection: binary frames around the bytes of MQTT, in both directions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use net::read::read_into;
use net::ws::{ClientHandshake, Decoder, Event, Side, close, frame};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read from the socket at once.
const READ_SIZE: usize = 16 * 1024;
/// Bytes of MQTT in one frame at most.
const FRAME_SIZE: usize = 64 * 1024;
/// Bytes that wait for the socket above which pings are not answered any more.
const MAX_WAITING: usize = 2 * FRAME_SIZE;

/// An open WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: TcpStream,
    decoder: Decoder,
    /// What was read; bytes of MQTT lie in it from `ready_from` on.
    input: Vec<u8>,
    ready_from: usize,
    /// Frames that wait for the socket; `sent` bytes of them are written.
    output: Vec<u8>,
    sent: usize,
    /// Bytes of the caller in the frame that waits: told as written once the frame is.
    claimed: usize,
    said_goodbye: bool,
    /// The peer has closed: nothing more comes.
    ended: bool,
    masks: fastrand::Rng,
}

impl WebSocket {
    /// Shakes hands over an open connection. `host` is what stands in the URL, `path` begins with a slash.
    ///
    /// # Errors
    /// What the server said instead, or the network.
    pub(crate) async fn open(mut stream: TcpStream, host: &str, path: &str) -> io::Result<Self> {
        // masks shall keep caches between from being led astray by a script (RFC 6455, 10.3): there is none here, so they need
        // not be secret
        let mut masks = fastrand::Rng::new();
        let (mut handshake, request) = ClientHandshake::new(host, path, masks.u128(..).to_ne_bytes());
        stream.write_all(request.as_bytes()).await?;
        let mut input = Vec::new();
        loop {
            input.clear();
            if read_into(&stream, &mut input, READ_SIZE).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed during the WebSocket handshake",
                ));
            }
            let opened =
                handshake.receive(&input).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            if let Some(rest) = opened {
                let mut socket = Self {
                    stream,
                    // a broker's packets are bounded by MQTT; frames need no bound of their own
                    decoder: Decoder::new(Side::Client, u64::MAX),
                    input: Vec::new(),
                    ready_from: 0,
                    output: Vec::new(),
                    sent: 0,
                    claimed: 0,
                    said_goodbye: false,
                    ended: false,
                    masks,
                };
                let begin = input.len().saturating_sub(rest);
                socket.take(input.get_mut(begin..).unwrap_or_default())?;
                return Ok(socket);
            }
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn mask(&mut self) -> Option<[u8; 4]> {
        Some(self.masks.u32(..).to_ne_bytes())
    }

    /// Takes frames apart; the bytes of MQTT gather in `input`.
    fn take(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Data(data))) => self.input.extend_from_slice(data),
                Ok(Some(Event::Ping(ping))) => {
                    if self.output.len() < MAX_WAITING {
                        let mask = self.mask();
                        frame::pong(ping.payload(), mask, &mut self.output);
                    }
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close { code, .. })) => {
                    self.ended = true;
                    self.say_goodbye(code.unwrap_or(close::NORMAL));
                    return Ok(());
                }
                Err(violation) => {
                    self.say_goodbye(violation.code);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, violation));
                }
            }
        }
    }

    fn say_goodbye(&mut self, code: u16) {
        if !self.said_goodbye {
            self.said_goodbye = true;
            let mask = self.mask();
            frame::close(code, mask, &mut self.output);
        }
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.output.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(ready) = this.input.get(this.ready_from..).filter(|ready| !ready.is_empty()) {
                let count = ready.len().min(buffer.remaining());
                buffer.put_slice(ready.get(..count).unwrap_or_default());
                this.ready_from += count;
                return Poll::Ready(Ok(()));
            }
            this.input.clear();
            this.ready_from = 0;
            // pongs go out while we listen; what is wrong with writing is told to who writes
            let _ = this.poll_output(context);
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ_SIZE];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = this.take(read.filled_mut());
            if taken.is_err() {
                let _ = this.poll_output(context);
            }
            taken?;
        }
    }
}

impl AsyncWrite for WebSocket {
    /// Who calls again after `Pending` must come with the same bytes, perhaps more.
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.claimed == 0 {
            if this.said_goodbye {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let payload = bytes.get(..FRAME_SIZE).unwrap_or(bytes);
            if payload.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let mask = this.mask();
            frame::binary(payload, mask, &mut this.output);
            this.claimed = payload.len();
        }
        ready!(this.poll_output(context))?;
        Poll::Ready(Ok(std::mem::take(&mut this.claimed)))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_output(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say_goodbye(close::NORMAL);
        ready!(this.poll_output(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tungstenite::Message;

    use super::*;

    /// What the reference's server has seen.
    #[derive(Default)]
    struct Seen {
        bytes: Vec<u8>,
        pongs: usize,
        code: Option<u16>,
    }

    /// The reference's server: echoes what it gets, with a ping before, until it is closed.
    fn server() -> (std::net::SocketAddr, std::thread::JoinHandle<Seen>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            let (stream, _) = listener.accept().unwrap();
            #[allow(clippy::result_large_err)] // the signature is tungstenite's
            let callback = |_: &tungstenite::handshake::server::Request,
                            mut answer: tungstenite::handshake::server::Response| {
                answer.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
                Ok(answer)
            };
            let mut socket = tungstenite::accept_hdr(stream, callback).unwrap();
            let mut seen = Seen::default();
            loop {
                match socket.read().unwrap() {
                    Message::Binary(data) => {
                        seen.bytes.extend_from_slice(&data);
                        socket.send(Message::Ping("?".into())).unwrap();
                        socket.send(Message::Binary(data)).unwrap();
                    }
                    Message::Pong(payload) => seen.pongs += usize::from(*payload == b"?"[..]),
                    Message::Close(why) => {
                        seen.code = why.map(|why| why.code.into());
                        return seen;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        (address, std::thread::spawn(serve))
    }

    #[test]
    fn bytes_go_both_ways_and_pings_are_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (address, server) = server();
        let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        runtime.block_on(async {
            let work = async {
                let stream = TcpStream::connect(address).await.unwrap();
                let socket = WebSocket::open(stream, "localhost", "/mqtt").await.unwrap();
                let (mut reader, mut writer) = tokio::io::split(socket);
                let writing = tokio::spawn(async move {
                    writer.write_all(&sent).await.unwrap();
                    writer
                });
                let mut echo = vec![0; expected.len()];
                reader.read_exact(&mut echo).await.unwrap();
                assert!(echo == expected);
                writing.await.unwrap().shutdown().await.unwrap();
                assert_eq!(reader.read(&mut echo).await.unwrap(), 0, "the other side has closed too");
            };
            tokio::time::timeout(Duration::from_secs(20), work).await.expect("in time");
        });
        let seen = server.join().unwrap();
        assert_eq!((seen.bytes.len(), seen.code), (300_000, Some(close::NORMAL)));
        assert!(seen.pongs > 0);
    }

    #[test]
    fn a_server_that_speaks_no_websocket_is_an_error_that_says_so() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (answer, expected) in [
            (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], "the server answers 404 (Not Found)"),
            (b"\x20\x02\x00\x00", "it is not HTTP"),
            (b"", "closed during the WebSocket handshake"),
        ] {
            let failed = runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let (mut server, _) = listener.accept().await.unwrap();
                server.write_all(answer).await.unwrap();
                server.shutdown().await.unwrap();
                let opening = WebSocket::open(stream, "localhost", "/mqtt");
                tokio::time::timeout(Duration::from_secs(20), opening).await.expect("in time").unwrap_err()
            });
            assert!(failed.to_string().contains(expected), "{failed}");
        }
    }
}
