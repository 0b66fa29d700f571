use std::collections::BTreeSet;

use tokio::net::TcpListener;

use super::*;

const WAIT: Duration = Duration::from_secs(20);

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(WAIT, work).await.expect("in time") })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bound = listener.local_addr().unwrap();
    (listener, bound)
}

#[test]
fn without_source_addresses_the_kernel_chooses() {
    block_on(async {
        let (listener, addr) = server().await;
        let stream = Dialer::new(vec![], WAIT).connect(addr).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, stream.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
    });
}

#[test]
fn a_connection_that_is_begun_does_not_block_and_comes_from_its_address() {
    block_on(async {
        let (listener, addr) = server().await;
        let begun = begin(Some(ip("127.0.0.5")), addr).unwrap();
        assert!(begun.nodelay().unwrap());
        let stream = TcpStream::from_std(begun).unwrap();
        stream.writable().await.unwrap();
        assert!(stream.take_error().unwrap().is_none());
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!((peer, peer.ip()), (stream.local_addr().unwrap(), ip("127.0.0.5")));
        // Nothing came, and that is told at once.
        assert_eq!(stream.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let error = begin(Some(ip("192.0.2.1")), addr).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("no such source address"), "{error}");
    });
}

#[test]
fn source_addresses_are_used_in_turn() {
    block_on(async {
        let (listener, addr) = server().await;
        let sources = vec![ip("127.0.0.2"), ip("::1"), ip("127.0.0.3"), ip("127.0.0.4")];
        let dialer = Dialer::new(sources, WAIT);
        let mut peers = Vec::new();
        for _ in 0..6 {
            let stream = dialer.connect(addr).await.unwrap();
            assert!(stream.nodelay().unwrap());
            peers.push(listener.accept().await.unwrap().1.ip().to_string());
        }
        assert_eq!(peers, ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    });
}

#[test]
fn ipv6_has_its_own_source_addresses() {
    block_on(async {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stream = Dialer::new(vec![ip("127.0.0.2"), ip("::1")], WAIT).connect(addr).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), ip("::1"));
        let error = Dialer::new(vec![ip("127.0.0.2")], WAIT).connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), format!("no source address has the address family of {addr}"));
    });
}

/// A socket that may use this one local port only, ip(7) `IP_LOCAL_PORT_RANGE`: the port range of a test.
#[cfg(target_os = "linux")]
fn with_one_port(socket: Socket, port: u16) -> io::Result<Socket> {
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let range = u32::from(port) << 16 | u32::from(port);
    sockopt::set(&socket, IP_LOCAL_PORT_RANGE, range.cast_signed())?;
    Ok(socket)
}

/// The promise behind the option, seen from outside: with one local port in all, two servers are reached from it at
/// the same time, and a third connection, to the first server again, finds no port.
#[cfg(target_os = "linux")]
#[test]
fn a_source_port_serves_every_server_once() {
    let _no_child_has_our_sockets = crate::SPAWN.read();
    block_on(async {
        let ((_one, first), (_two, second)) = (server().await, server().await);
        let source = Some(ip("127.0.0.9"));
        // The range must be there before bind(2) for a bind that takes a port, so `open` is done by hand.
        let narrow_to = |port| {
            move |source: Option<IpAddr>, addr: SocketAddr| {
                let socket = with_one_port(open(None, addr)?, port)?;
                sockopt::bind_address_no_port(&socket)?;
                socket.bind(&SocketAddr::new(source.unwrap(), 0).into())?;
                Ok(socket)
            }
        };
        // Other tests have listeners on ports of their own, and connect(2) passes over those: find another.
        let mut ports = 40_000..41_000;
        let (port, one) = loop {
            let port = ports.next().expect("one of a thousand ports is free");
            if let Ok((stream, _)) = connect_in_turn([source].into_iter(), first, &[], narrow_to(port)).await
            {
                break (port, stream);
            }
        };
        let narrow = narrow_to(port);
        let two = connect_in_turn([source].into_iter(), second, &[], narrow).await.unwrap().0;
        assert_eq!(one.local_addr().unwrap(), two.local_addr().unwrap());
        assert_eq!(one.local_addr().unwrap().port(), port);
        let error = connect_in_turn([source].into_iter(), first, &[], narrow).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(error.to_string(), format!("cannot connect from 127.0.0.9 to {first}: {NO_PORT}"));
        // The next source address has its turn then.
        let three =
            connect_in_turn([source, Some(ip("127.0.0.8"))].into_iter(), first, &[], narrow).await.unwrap().0;
        assert_eq!(three.local_addr().unwrap(), SocketAddr::new(ip("127.0.0.8"), port));

        // And without the option the same port can't be had twice.
        let plain = || {
            let socket = with_one_port(open(None, first)?, port)?;
            socket.bind(&SocketAddr::new(ip("127.0.0.9"), 0).into())
        };
        assert_eq!(plain().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_bound_socket_has_the_option_and_no_port_yet() {
    for (source, addr) in [("127.0.0.2", "127.0.0.1:1"), ("::1", "[::1]:1")] {
        let socket = open(Some(ip(source)), addr.parse().unwrap()).unwrap();
        let local = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!((local.ip(), local.port()), (ip(source), 0));
    }
}

#[test]
fn a_refused_connection_is_said_so_at_once() {
    let _no_child_has_our_sockets = crate::SPAWN.read();
    block_on(async {
        let (listener, addr) = server().await;
        drop(listener);
        let error =
            Dialer::new(vec![ip("127.0.0.2"), ip("127.0.0.3")], WAIT).connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_source_address_of_another_machine_is_an_error() {
    block_on(async {
        let (_listener, addr) = server().await;
        let error = Dialer::new(vec![ip("192.0.2.1")], WAIT).connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(error.to_string(), format!("cannot connect from 192.0.2.1 to {addr}: {NO_SUCH_ADDRESS}"));
        // One among others costs no connection: the next has its turn.
        let dialer = Dialer::new(vec![ip("192.0.2.1"), ip("127.0.0.2")], WAIT);
        for _ in 0..2 {
            let stream = dialer.connect(addr).await.unwrap();
            assert_eq!(stream.local_addr().unwrap().ip(), ip("127.0.0.2"));
        }
    });
}

/// A server whose queue is full drops what comes next: the connection neither succeeds nor fails.
#[test]
fn a_silent_server_costs_no_more_than_the_timeout() {
    block_on(async {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let dialer = Dialer::new(vec![], Duration::from_millis(100));
        let mut filling = Vec::new();
        let error = loop {
            match dialer.connect(addr).await {
                Ok(stream) => filling.push(stream),
                Err(error) => break error,
            }
            assert!(filling.len() < 100, "the queue has no end");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no connection after 100 ms");
    });
}

#[test]
fn a_clone_begins_its_own_turns() {
    let dialer = Dialer::new(vec![ip("127.0.0.2"), ip("127.0.0.3")], WAIT);
    let addr = "127.0.0.1:1".parse().unwrap();
    let first = dialer.sources_for(addr).unwrap();
    assert_ne!(dialer.sources_for(addr).unwrap(), first);
    let other = dialer.clone();
    assert_eq!(other.sources_for(addr).unwrap(), first);
    assert_ne!(dialer.sources_for(addr).unwrap(), other.sources_for(addr).unwrap());
}

#[test]
fn every_source_address_of_the_family_is_tried_once_from_the_turn_on() {
    let all = ["127.0.0.2", "::1", "127.0.0.3", "127.0.0.4"].map(ip);
    let dialer = Dialer::new(all.to_vec(), WAIT);
    let turns: Vec<Vec<_>> = (0..4)
        .map(|_| dialer.sources_for("127.0.0.1:1".parse().unwrap()).unwrap().flatten().collect())
        .collect();
    let [a, _, b, c] = all;
    assert_eq!(turns, [vec![a, b, c], vec![b, c, a], vec![c, a, b], vec![a, b, c]]);
    let six: Vec<_> = dialer.sources_for("[::1]:1".parse().unwrap()).unwrap().collect();
    assert_eq!(six, [Some(ip("::1"))]);
    let none: Vec<_> = Dialer::new(vec![], WAIT).sources_for("[::1]:1".parse().unwrap()).unwrap().collect();
    assert_eq!(none, [None]);
}

#[test]
fn names_and_addresses_resolve() {
    block_on(async {
        assert_eq!(resolve("127.0.0.1:80").await.unwrap(), ["127.0.0.1:80".parse::<SocketAddr>().unwrap()]);
        assert_eq!(resolve("[::1]:80").await.unwrap(), ["[::1]:80".parse::<SocketAddr>().unwrap()]);
        let local = resolve("localhost:80").await.unwrap();
        assert!(local.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80), "{local:?}");
        assert_eq!(local.iter().collect::<BTreeSet<_>>().len(), local.len(), "each once");
        for text in ["", "localhost", "localhost:", "localhost:http", "127.0.0.1", "a b:80"] {
            assert!(resolve(text).await.is_err(), "{text}");
        }
    });
}

#[test]
fn the_first_bytes_are_sent_with_the_connection() {
    block_on(async {
        use tokio::io::AsyncReadExt;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = Dialer::new(vec![], WAIT);
        let (stream, sent) =
            dialer.connect_sending(listener.local_addr().unwrap(), b"CONNECT").await.unwrap();
        assert_eq!(sent, 7, "a server on this machine takes them at once");
        let (mut server, _) = listener.accept().await.unwrap();
        drop(stream);
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"CONNECT");
    });
}

#[test]
fn a_refusal_is_told_whether_or_not_there_is_something_to_send() {
    block_on(async {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dialer = Dialer::new(vec![], WAIT);
        for first in [&b""[..], b"CONNECT"] {
            let error = dialer.connect_sending(gone, first).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_in_a_reactor_is_made_as_any_other() {
    block_on(async {
        let _no_child_has_our_sockets = crate::SPAWN.read();
        let reactor = Reactor::new().unwrap();
        let turning = reactor.clone();
        let turner = async move {
            let mut keys = Vec::new();
            std::future::poll_fn::<(), _>(|cx| {
                while let std::task::Poll::Ready(outcome) = turning.poll_turn(cx, &mut keys) {
                    outcome.unwrap();
                }
                std::task::Poll::Pending
            })
            .await;
        };
        let work = async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let dialer = Dialer::new(vec![ip("127.0.0.2")], WAIT);
            for first in [&b""[..], b"CONNECT"] {
                let (stream, sent) = dialer.connect_in(&reactor, addr, first).await.unwrap();
                assert_eq!(sent, first.len());
                let (server, from) = listener.accept().await.unwrap();
                assert_eq!((from.ip(), stream.local_addr().unwrap()), (ip("127.0.0.2"), from));
                let mut got = vec![0; sent];
                let mut server = server.into_std().unwrap();
                server.set_nonblocking(false).unwrap();
                io::Read::read_exact(&mut server, &mut got).unwrap();
                assert_eq!(got, first);
            }
            drop(listener);
            for first in [&b""[..], b"CONNECT"] {
                let error = dialer.connect_in(&reactor, addr, first).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            }
            assert_eq!(reactor.sockets(), 0);
        };
        tokio::select! { () = work => {}, () = turner => {} }
    });
}
