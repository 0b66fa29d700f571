//! What a test can only see from inside: what a journey weighs, who goes on when accept fails, who is listed as silent.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use net::reactor::Reactor;
use runtime::clock::Clock;
use runtime::config::Document;
use runtime::events::Events;
use runtime::lifecycle::Shutdown;
use runtime::workers::WorkerId;
use rustix::io::Errno;
use tokio::task::LocalSet;

use super::silent::Quiet;
use super::*;
use crate::session_log::Log;

/// Nothing takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(10);
/// A CONNECT (3.1) of MQTT 3.1.1 from `car`.
const CONNECT: &[u8] = b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x03car";

/// Of a flood of devices that have no server yet, each costs this and the bytes it sent.
#[test]
fn a_connection_on_its_way_is_small() {
    fn future<F: Future>(_: impl FnOnce(Arriving, Open, Arc<Policy>, Device, bool) -> F) -> usize {
        size_of::<F>()
    }
    assert!(future(serve) <= 1_400, "{}", future(serve));
    assert!(size_of::<Silent>() <= 112, "{}", size_of::<Silent>());
}

fn listener(server: SocketAddr, now: Instant) -> Arc<Listener> {
    let text = format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:0\"\nupstream = \"b\"\n\
         [[gateway.upstreams]]\nname = \"b\"\nservers = [ {{ address = \"{server}\" }} ]\n"
    );
    let document = Document::parse(Path::new("test.toml"), &text).unwrap();
    let config = document.read(|root| root.table("gateway", crate::config::read)).unwrap().unwrap();
    let upstream = Arc::new(Upstream::new(&config.upstreams[0], 1, None, &[]));
    let policy = Policy::new(config.listeners[0].clone(), upstream);
    Arc::new(Listener::new(1, config.listeners[0].bind, policy, 1, now))
}

/// An accepted connection whose device has said this already, and the device.
fn accepted(said: &[u8]) -> (OwnedFd, SocketAddr, TcpStream) {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut device = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    device.write_all(said).unwrap();
    let (ours, from) = door.accept().unwrap();
    if !said.is_empty() {
        ours.peek(&mut [0]).unwrap(); // which waits for it
    }
    ours.set_nonblocking(true).unwrap();
    (ours.into(), from, device)
}

/// The descriptors are used up, and stay so, while there are more who want in.
#[tokio::test]
async fn connections_that_were_accepted_go_on_while_accept_fails() {
    let clock = Clock::system();
    let (events, log) = (Events::new(clock.clone(), 10), Log::new(clock.clone()));
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = listener(server.local_addr().unwrap(), clock.now());
    let worker = Worker::new(WorkerId(0), clock, events, log, Shutdown::new(), 0, 0).unwrap();
    let (fd, from, _device) = accepted(CONNECT);
    let first = Cell::new(Some((fd, from)));
    let accept = move |_: &Context<'_>| Poll::Ready(first.take().ok_or_else(|| Errno::MFILE.into()));
    let test = async {
        let listening = spawn_local(listen(worker, Arc::clone(&listener), accept));
        let (mut stream, _) = server.accept().await.unwrap();
        let mut got = [0; CONNECT.len()];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut got).await.unwrap();
        assert_eq!(got, *CONNECT);
        assert!(listener.stats.get(WorkerId(0)).unwrap().pauses.get() > 0, "accepting rests");
        listening.abort();
    };
    timeout(DEADLINE, LocalSet::new().run_until(test)).await.expect("it goes on");
}

/// A place is used again, and whoever has it is not taken for the one before.
#[tokio::test]
async fn only_those_who_are_still_silent_are_found_silent_for_too_long() {
    let now = Clock::system().now();
    let (reactor, listener) = (Reactor::new().unwrap(), listener("127.0.0.1:1".parse().unwrap(), now));
    let mut quiet = Quiet::new();
    let mut devices = Vec::new();
    let mut insert = |quiet: &mut Quiet, since| {
        let (fd, from, device) = accepted(b"");
        devices.push(device);
        let stream = Stream::connected(&reactor, fd).unwrap();
        let (open, policy) = (listener.enter(10).unwrap(), listener.policy.load_full());
        quiet.insert(Silent { stream, open, policy, from, since, in_time: true });
        from
    };
    let (key, later) = (1 << 31, now + Duration::from_millis(1));
    let first = insert(&mut quiet, now);
    assert!(Quiet::has(key) && !Quiet::has(0) && !Quiet::has(key - 1));
    assert_eq!(quiet.take(key).map(|silent| silent.from), Some(first));
    assert!(quiet.is_empty() && quiet.take(key).is_none() && listener.open() == 0);
    let second = insert(&mut quiet, later);
    assert_eq!(quiet.get(key).map(|silent| silent.from), Some(second), "in the same place");
    let grace = Duration::from_secs(1);
    assert!(quiet.oldest(now).is_none() && !quiet.is_due(now) && quiet.is_due(now + grace));
    assert!(quiet.oldest(now + grace).unwrap().is_none(), "the first has spoken");
    assert!(quiet.oldest(now + grace).is_none());
    assert_eq!(quiet.oldest(later + grace).flatten().map(|silent| silent.from), Some(second));
    insert(&mut quiet, later);
    let all = quiet.take_all().len();
    assert_eq!((all, quiet.is_empty(), listener.open()), (1, true, 0));
    assert!(quiet.oldest(later + grace).unwrap().is_none());
    for device in &mut devices {
        assert_eq!(device.read(&mut [0]).unwrap(), 0, "its socket was closed");
    }
}
