use std::time::Duration;

use tokio::io::Interest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await.expect("in time") })
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// As [`splice_once`], and notes with the runtime who said "would block".
fn splice(from: &TcpStream, pipe: &mut Pipe, to: &TcpStream, max: usize) -> io::Result<Moved> {
    let moved = splice_once(from, pipe, to, max)?;
    let blocked = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    match moved {
        Moved::AwaitReadable => drop(from.try_io(Interest::READABLE, blocked)),
        Moved::AwaitWritable => drop(to.try_io(Interest::WRITABLE, blocked)),
        Moved::Bytes(_) | Moved::Closed => {}
    }
    Ok(moved)
}

/// Bytes that differ everywhere, from a seed (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// Moves everything from one socket to the other, as a relay does, and gives back how much.
async fn relay(from: &TcpStream, pipe: &mut Pipe, to: &mut TcpStream, max: usize) -> io::Result<usize> {
    let mut total = 0;
    loop {
        match splice(from, pipe, to, max)? {
            Moved::Bytes(count) => {
                assert!((1..=max.max(1)).contains(&count));
                total += count;
                tokio::task::yield_now().await; // a turn has an end
            }
            Moved::AwaitReadable => from.readable().await?,
            Moved::AwaitWritable => to.writable().await?,
            Moved::Closed => {
                to.shutdown().await?;
                return Ok(total);
            }
        }
    }
}

#[test]
fn what_arrives_is_what_was_sent() {
    block_on(async {
        for (length, max) in
            [(0, 65_536), (1, 65_536), (3_000_000, 65_536), (3_000_000, 1 << 20), (5_000, 7), (10, 0)]
        {
            let pool = PipePool::new(1);
            let mut pipe = pool.take().unwrap().unwrap();
            let (mut sender, from) = pair().await;
            let (mut to, mut receiver) = pair().await;
            let sent = noise(length);
            let send = async {
                sender.write_all(&sent).await.unwrap();
                sender.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let receive = async { receiver.read_to_end(&mut got).await.unwrap() };
            let (moved, (), received) = tokio::join!(relay(&from, &mut pipe, &mut to, max), send, receive);
            assert_eq!((moved.unwrap(), received), (length, length));
            assert!(got == sent, "{length} bytes in steps of {max}");
            drop(pipe);
            assert_eq!((pool.open(), pool.idle()), (1, 1));
        }
    });
}

#[test]
fn an_idle_pair_waits_for_the_sender() {
    block_on(async {
        let pool = PipePool::new(1);
        let mut pipe = pool.take().unwrap().unwrap();
        let ((_sender, from), (to, _receiver)) = (pair().await, pair().await);
        to.writable().await.unwrap();
        assert_eq!(splice(&from, &mut pipe, &to, 100).unwrap(), Moved::AwaitReadable);
        assert_eq!(pipe.held(), 0);
    });
}

/// A receiver that does not read: bytes stay in the pipe, and such a pipe is closed and not given to another.
#[test]
fn a_pipe_that_holds_bytes_never_meets_another_pair() {
    block_on(async {
        let pool = PipePool::new(2);
        let mut pipe = pool.take().unwrap().unwrap();
        let (mut sender, from) = pair().await;
        let (to, mut receiver) = pair().await;
        let sending = tokio::spawn(async move {
            let _ = sender.write_all(&noise(50_000_000)).await;
        });
        let mut moved = 0;
        loop {
            match splice(&from, &mut pipe, &to, 65_536).unwrap() {
                Moved::Bytes(count) => moved += count,
                Moved::AwaitReadable => from.readable().await.unwrap(),
                Moved::AwaitWritable => break,
                Moved::Closed => panic!("it all fit"),
            }
            tokio::task::yield_now().await;
        }
        assert!(pipe.held() > 0);
        let held = pipe.held();
        // The bytes in the pipe go first when there is room again.
        let mut got = vec![0; moved];
        receiver.read_exact(&mut got).await.unwrap();
        assert!(got == noise(moved));
        loop {
            to.writable().await.unwrap();
            match splice(&from, &mut pipe, &to, 65_536).unwrap() {
                Moved::Bytes(_) => break,
                Moved::AwaitWritable => {}
                other => panic!("{other:?} with {held} bytes held"),
            }
        }
        // Stop in the middle again.
        loop {
            match splice(&from, &mut pipe, &to, 65_536).unwrap() {
                Moved::AwaitWritable => break,
                Moved::AwaitReadable => from.readable().await.unwrap(),
                _ => tokio::task::yield_now().await,
            }
        }
        drop(pipe);
        assert_eq!((pool.open(), pool.idle()), (0, 0));
        sending.abort();
    });
}

/// The sender is done while its last bytes are still in the pipe: they are not lost.
#[test]
fn the_end_comes_after_the_last_byte() {
    block_on(async {
        let pool = PipePool::new(1);
        let mut pipe = pool.take().unwrap().unwrap();
        let (mut sender, from) = pair().await;
        let (mut to, mut receiver) = pair().await;
        // Piece by piece, so that nothing is left at the sender when the receiver is full.
        let (piece, mut sent) = (noise(4096), 0);
        while pipe.held() == 0 {
            sender.write_all(&piece).await.unwrap();
            sent += piece.len();
            let mut left = piece.len();
            while left > 0 && pipe.held() == 0 {
                match splice(&from, &mut pipe, &to, 65_536).unwrap() {
                    Moved::Bytes(count) => left -= count,
                    Moved::AwaitReadable => from.readable().await.unwrap(),
                    Moved::AwaitWritable => {}
                    Moved::Closed => panic!("too early"),
                }
            }
        }
        sender.shutdown().await.unwrap();
        from.readable().await.unwrap();
        assert_ne!(splice(&from, &mut pipe, &to, 65_536).unwrap(), Moved::Closed);
        let mut got = Vec::new();
        let receive = async { receiver.read_to_end(&mut got).await.unwrap() };
        let (moved, received) = tokio::join!(relay(&from, &mut pipe, &mut to, 65_536), receive);
        moved.unwrap();
        assert_eq!(received, sent);
        assert!(got.chunks(piece.len()).all(|chunk| chunk == piece));
    });
}

#[test]
fn at_the_bound_the_pool_gives_nothing() {
    let pool = PipePool::new(2);
    assert_eq!(pool.open(), 0, "none is opened before it is wanted");
    let other = pool.clone();
    let (first, second) = (pool.take().unwrap().unwrap(), other.take().unwrap().unwrap());
    assert!(pool.take().unwrap().is_none());
    drop(first);
    assert_eq!((pool.open(), pool.idle()), (2, 1));
    let third = pool.take().unwrap().unwrap();
    assert!(pool.take().unwrap().is_none());
    drop((second, third));
    assert_eq!((pool.open(), pool.idle()), (2, 2));
    assert!(PipePool::new(0).take().unwrap().is_none());
}

#[test]
fn a_pipe_may_outlive_its_pool() {
    let pool = PipePool::new(1);
    let pipe = pool.take().unwrap().unwrap();
    drop(pool);
    drop(pipe);
}

#[test]
fn a_broken_receiver_is_an_error() {
    block_on(async {
        let pool = PipePool::new(1);
        let mut pipe = pool.take().unwrap().unwrap();
        let (mut sender, from) = pair().await;
        let (mut to, receiver) = pair().await;
        // Unread bytes make the close a reset.
        to.write_all(b"unread").await.unwrap();
        receiver.readable().await.unwrap();
        drop(receiver);
        sender.write_all(&noise(1000)).await.unwrap();
        let error = relay(&from, &mut pipe, &mut to, 100).await.unwrap_err();
        assert!(
            matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            "{error}"
        );
        drop(pipe);
        assert_eq!(pool.open(), 0, "it held bytes");
    });
}
