use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Runs the work beside a task that turns the reactor, as a worker does; the keys that came are in its answer.
fn block_on<T>(work: impl AsyncFnOnce(Reactor, Rc<RefCell<Vec<u32>>>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let reactor = Reactor::new().unwrap();
        let keys = Rc::new(RefCell::new(Vec::new()));
        let (turning, seen) = (reactor.clone(), Rc::clone(&keys));
        let turner = tokio::task::spawn_local(poll_fn(move |cx| -> Poll<()> {
            while let Poll::Ready(outcome) = turning.poll_turn(cx, &mut seen.borrow_mut()) {
                outcome.unwrap();
            }
            Poll::Pending
        }));
        let outcome =
            tokio::time::timeout(Duration::from_secs(60), work(reactor, keys)).await.expect("in time");
        turner.abort();
        outcome
    })
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// A socket in the reactor and its peer, which blocks.
async fn pair(reactor: &Reactor) -> (Stream, TcpStream) {
    let listener = listener();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let acceptor = Acceptor::new(reactor, listener).unwrap();
    let (fd, from) = poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap();
    assert_eq!(from, peer.local_addr().unwrap());
    (Stream::connected(reactor, fd).unwrap(), peer)
}

fn would_block<T: fmt::Debug>(outcome: io::Result<T>) {
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// Waits until the keys are these, and forgets them.
async fn expect_keys(keys: &RefCell<Vec<u32>>, wanted: &[u32]) {
    while keys.borrow().len() < wanted.len() {
        tokio::task::yield_now().await;
    }
    assert_eq!(keys.take(), wanted);
}

#[test]
fn a_task_waits_for_bytes_and_for_the_end() {
    block_on(async |reactor, _| {
        let (stream, mut peer) = pair(&reactor).await;
        assert!(!stream.is_readable());
        would_block(stream.recv(&mut [0; 4]));
        peer.write_all(b"abcdef").unwrap();
        stream.readable().await;
        let mut buffer = [0; 4];
        assert_eq!(stream.recv(&mut buffer).unwrap(), 4);
        assert!(stream.is_readable(), "a full buffer tells nothing");
        assert_eq!(stream.recv(&mut buffer).unwrap(), 2);
        assert!(!stream.is_readable(), "a partial read does");
        peer.shutdown(Shutdown::Write).unwrap();
        stream.readable().await;
        assert!(stream.has_ended());
        assert_eq!(stream.recv(&mut buffer).unwrap(), 0);
        assert!(stream.is_drained());
        // The other direction is open.
        stream.write_all(b"answer").await.unwrap();
        stream.shutdown().unwrap();
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"answer");
    });
}

#[test]
fn the_end_behind_the_last_bytes_needs_no_further_read() {
    block_on(async |reactor, _| {
        let (stream, mut peer) = pair(&reactor).await;
        peer.write_all(b"bye").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        while !stream.has_ended() {
            tokio::task::yield_now().await;
        }
        assert_eq!(stream.recv(&mut [0; 16]).unwrap(), 3);
        assert!(stream.is_drained());
    });
}

#[test]
fn what_is_there_at_the_beginning_needs_no_event() {
    block_on(async |reactor, keys| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for first in [&b"hello"[..], b""] {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.write_all(first).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut buffer = [0; 16];
            let (stream, got) = Stream::connected_reading(&reactor, socket.into(), &mut buffer).unwrap();
            assert_eq!(&buffer[..got], first);
            stream.deliver_to(3);
            assert!(!stream.is_readable());
            peer.write_all(b"more").unwrap();
            expect_keys(&keys, &[3]).await;
            assert_eq!(stream.recv(&mut buffer).unwrap(), 4);
        }
    });
}

/// A read stops at urgent data: what is behind it is not lost, although the end was told before.
#[test]
fn urgent_data_hides_nothing() {
    block_on(async |reactor, _| {
        let (stream, mut peer) = pair(&reactor).await;
        peer.write_all(b"before").unwrap();
        socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap();
        peer.write_all(b"behind").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        while !stream.has_ended() {
            tokio::task::yield_now().await;
        }
        let mut got = Vec::new();
        while stream.read_into(&mut got, 16).await.unwrap() > 0 {}
        assert_eq!(got, b"beforebehind");
    });
}

#[test]
fn a_reset_is_an_error_and_not_an_end() {
    block_on(async |reactor, _| {
        let (stream, mut peer) = pair(&reactor).await;
        peer.write_all(b"last").unwrap();
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        while !stream.has_ended() {
            tokio::task::yield_now().await;
        }
        let mut got = Vec::new();
        let error = loop {
            match stream.read_into(&mut got, 16).await {
                Ok(0) => panic!("an end"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_full_receiver_is_waited_for() {
    block_on(async |reactor, keys| {
        let (stream, mut peer) = pair(&reactor).await;
        stream.deliver_to(9);
        let mut sent = 0;
        while stream.is_writable() {
            match stream.send(&[7; 65_536], false) {
                Ok(took) => sent += took,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        tokio::task::yield_now().await;
        keys.take();
        assert!(!stream.is_writable());
        let reading = std::thread::spawn(move || {
            let mut got = vec![0; sent];
            peer.read_exact(&mut got).unwrap();
            peer
        });
        while !stream.is_writable() {
            tokio::task::yield_now().await;
        }
        assert!(keys.borrow().contains(&9));
        assert!(stream.send(b"more", false).unwrap() > 0);
        drop(reading.join().unwrap());
    });
}

#[test]
fn keys_come_for_each_event_until_the_socket_is_gone() {
    block_on(async |reactor, keys| {
        let ((one, mut first), (two, mut second)) = (pair(&reactor).await, pair(&reactor).await);
        one.deliver_to(1);
        two.deliver_to(2);
        first.write_all(b"x").unwrap();
        expect_keys(&keys, &[1]).await;
        second.write_all(b"y").unwrap();
        expect_keys(&keys, &[2]).await;
        first.write_all(b"x").unwrap();
        expect_keys(&keys, &[1]).await;
        assert!(one.is_readable() && two.is_readable());
        assert_eq!(reactor.sockets(), 2);
        // An event that is under way finds nobody.
        first.write_all(b"x").unwrap();
        drop(one);
        second.write_all(b"y").unwrap();
        expect_keys(&keys, &[2]).await;
        assert_eq!(reactor.sockets(), 1);
    });
}

#[test]
fn what_goes_out_together_arrives_as_one() {
    block_on(async |reactor, _| {
        let (stream, mut peer) = pair(&reactor).await;
        assert_eq!(stream.send(b"bye", true).unwrap(), 3);
        stream.shutdown().unwrap();
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"bye");
    });
}

/// A duplicate of a listener stays open (socket activation): the reactor hears no more of it.
#[test]
fn an_acceptor_that_is_gone_is_not_told_of() {
    block_on(async |reactor, _| {
        let listener = listener();
        let kept = listener.try_clone().unwrap();
        let acceptor = Acceptor::new(&reactor, listener).unwrap();
        drop(acceptor);
        let _waiting = TcpStream::connect(kept.local_addr().unwrap()).unwrap();
        let (stream, mut peer) = pair(&reactor).await;
        peer.write_all(b"x").unwrap();
        stream.readable().await;
        assert_eq!(reactor.sockets(), 1);
        assert!(kept.accept().is_ok(), "it is still there for others");
    });
}

/// More sockets than one batch of events holds.
#[test]
fn every_socket_of_a_crowd_is_told_of() {
    block_on(async |reactor, keys| {
        let crowd = u32::try_from(BATCH + 20).unwrap();
        let mut sockets = Vec::new();
        for key in 0..crowd {
            let (stream, peer) = pair(&reactor).await;
            stream.deliver_to(key);
            sockets.push((stream, peer));
        }
        keys.take();
        sockets.iter_mut().for_each(|(_, peer)| peer.write_all(b"x").unwrap());
        while keys.borrow().len() < sockets.len() {
            tokio::task::yield_now().await;
        }
        let mut seen = keys.take();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..crowd).collect::<Vec<_>>());
    });
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    Read(usize),
    Turn,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1_usize..40).prop_map(Step::Write),
        (1_usize..40).prop_map(Step::Read),
        Just(Step::Turn),
    ];
    prop::collection::vec(step, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of writing, reading and turning: every byte and the end arrive without a read that nobody was
    /// told of.
    #[test]
    fn a_reader_that_follows_the_readiness_misses_nothing(steps in steps()) {
        block_on(async |reactor, _| {
            let (stream, mut peer) = pair(&reactor).await;
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            let read = |got: &mut Vec<u8>, most: usize| {
                if stream.is_readable() {
                    let mut buffer = vec![0; most];
                    let count = stream.recv(&mut buffer).unwrap_or(0);
                    got.extend_from_slice(&buffer[..count]);
                }
            };
            for step in steps {
                match step {
                    Step::Write(count) => {
                        let bytes: Vec<u8> = (0..count).map(|at| (sent.len() + at) as u8).collect();
                        peer.write_all(&bytes).unwrap();
                        sent.extend(bytes);
                    }
                    Step::Read(most) => read(&mut got, most),
                    Step::Turn => tokio::task::yield_now().await,
                }
            }
            peer.shutdown(Shutdown::Write).unwrap();
            while !stream.is_drained() {
                stream.readable().await;
                read(&mut got, 16);
            }
            assert_eq!(got, sent);
        });
    }
}
