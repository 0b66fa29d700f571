//! A gateway on its workers, brokers that only count and keep what they get, devices that speak bytes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gateway::config::GatewayConfig;
use gateway::{Context, Gateway};
use mqtt::Version;
use mqtt::codec::encode::encode;
use mqtt::packet::{Connect, ConnectProperties, Packet, PublishProperties, Will};
use runtime::clock::Clock;
use runtime::config::Document;
use runtime::events::{Event, Events};
use runtime::lifecycle::{Readiness, Shutdown};
use runtime::metrics::Registry;
use runtime::workers::Workers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// No step of a test takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Within the deadline, or the test fails where it is.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(DEADLINE, future).await {
            Ok(value) => value,
            Err(_) => panic!("nothing within {DEADLINE:?} at {caller}"),
        }
    }
}

/// Looks again and again until there is something, within the deadline.
#[track_caller]
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    soon(async move {
        loop {
            if let Some(value) = look() {
                return value;
            }
            // sleep: between two looks, within the deadline of `soon`
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// A gateway with everything around it. Workers end with it.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    pub(crate) events: Events,
    pub(crate) registry: Registry,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    workers: Workers,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

pub(crate) fn parse(text: &str) -> GatewayConfig {
    let document = Document::parse(Path::new("test.toml"), text).unwrap();
    document
        .read(|root| root.table("gateway", gateway::config::read))
        .unwrap_or_else(|problems| panic!("{problems}"))
        .unwrap()
}

/// One listener on a free port and one upstream named `brokers`, with what the test adds to them.
pub(crate) fn config(listener: &str, upstream: &str, servers: &[SocketAddr]) -> String {
    let mut list = String::new();
    for (index, server) in servers.iter().enumerate() {
        let _ = write!(list, "{{ name = \"s{index}\", address = \"{server}\" }}, ");
    }
    format!(
        "[gateway]\n[[gateway.listeners]]\nbind = \"127.0.0.1:0\"\nupstream = \"brokers\"\n{listener}\n\
         [[gateway.upstreams]]\nname = \"brokers\"\n{upstream}\nservers = [ {list} ]\n"
    )
}

impl Running {
    pub(crate) fn start(text: &str) -> Self {
        let clock = Clock::system();
        let workers = Workers::start(2, clock.clone()).unwrap();
        let events = Events::new(clock.clone(), 10_000);
        let (registry, readiness, shutdown) = (Registry::new(), Readiness::new(), Shutdown::new());
        let context = Context {
            workers: workers.clone(),
            clock,
            events: events.clone(),
            registry: registry.clone(),
            readiness: readiness.clone(),
            shutdown: shutdown.clone(),
        };
        let gateway = Gateway::start(parse(text), context).unwrap();
        Self { gateway, events, registry, readiness, shutdown, workers }
    }

    /// The address of the first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.local_addrs()[0].1
    }

    /// The first event that fits, as soon as it is there.
    #[track_caller]
    pub(crate) fn event(&self, fits: impl Fn(&Event) -> bool) -> impl Future<Output = Event> {
        eventually(move || {
            self.events.recent(|record| fits(&record.event), 1).pop().map(|record| record.event)
        })
    }

    /// How many events fit so far.
    pub(crate) fn count(&self, fits: impl Fn(&Event) -> bool) -> usize {
        self.events.recent(|record| fits(&record.event), usize::MAX).len()
    }

    /// Waits for a refusal with this word.
    #[track_caller]
    pub(crate) fn refused(&self, word: &str) -> impl Future<Output = Event> {
        self.event(move |event| matches!(event, Event::GatewayRefused { reason, .. } if **reason == *word))
    }

    /// Waits until this line stands in the metrics.
    #[track_caller]
    pub(crate) fn metric(&self, line: &str) -> impl Future<Output = ()> {
        eventually(move || self.registry.render().lines().any(|have| have == line).then_some(()))
    }
}

/// A broker that accepts and hands every connection to the test.
pub(crate) struct Broker {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub(crate) async fn fleet<const N: usize>() -> [Self; N] {
        let mut brokers = Vec::new();
        for _ in 0..N {
            brokers.push(Self::start().await);
        }
        brokers.try_into().ok().unwrap()
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> impl Future<Output = TcpStream> {
        soon(async { self.listener.accept().await.unwrap().0 })
    }

    /// The next connection, which must begin with these bytes.
    pub(crate) async fn accept_with(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.accept().await;
        expect(&mut stream, bytes).await;
        stream
    }
}

pub(crate) fn addresses(brokers: &[Broker]) -> Vec<SocketAddr> {
    brokers.iter().map(|broker| broker.address).collect()
}

/// An address where nobody listens, and nobody will before [`Nobody::arrives`]: the port stays bound.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    bound: socket2::Socket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { address, bound: socket }
    }

    /// From now on a broker listens there.
    pub(crate) fn arrives(self) -> Broker {
        self.bound.listen(128).unwrap();
        self.bound.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(self.bound.into()).unwrap();
        Broker { listener, address: self.address }
    }
}

/// Which of the brokers gets the next connection.
pub(crate) async fn whoever(brokers: &[Broker]) -> (usize, TcpStream) {
    soon(std::future::poll_fn(|cx| {
        for (index, broker) in brokers.iter().enumerate() {
            if let std::task::Poll::Ready(accepted) = broker.listener.poll_accept(cx) {
                return std::task::Poll::Ready((index, accepted.unwrap().0));
            }
        }
        std::task::Poll::Pending
    }))
    .await
}

/// A CONNECT.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) version: Version,
    pub(crate) id: String,
    pub(crate) username: Option<String>,
    pub(crate) will: usize,
}

pub(crate) fn hello(id: &str) -> Hello {
    Hello { version: Version::V5, id: id.to_owned(), username: None, will: 0 }
}

impl Hello {
    pub(crate) fn version(self, version: Version) -> Self {
        Self { version, ..self }
    }

    pub(crate) fn username(self, name: &str) -> Self {
        Self { username: Some(name.to_owned()), ..self }
    }

    pub(crate) fn will(self, bytes: usize) -> Self {
        Self { will: bytes, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let packet = Connect {
            version: self.version,
            bridge: false,
            clean_start: true,
            keep_alive: 60,
            client_id: self.id.as_str().into(),
            will: (self.will > 0).then(|| Will {
                topic: "will".into(),
                payload: vec![7; self.will].into(),
                qos: mqtt::QoS::AtMostOnce,
                retain: false,
                delay_interval: None,
                properties: PublishProperties::default(),
            }),
            username: self.username.as_deref().map(Into::into),
            password: None,
            properties: ConnectProperties::default(),
        };
        let mut bytes = Vec::new();
        encode(&Packet::Connect(Box::new(packet)), self.version, &mut bytes).unwrap();
        bytes
    }
}

/// Connects and says these bytes.
pub(crate) async fn device(to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = soon(TcpStream::connect(to)).await.unwrap();
    soon(stream.write_all(bytes)).await.unwrap();
    stream
}

/// The same from another local address.
pub(crate) async fn device_from(from: &str, to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut stream = soon(socket.connect(to)).await.unwrap();
    soon(stream.write_all(bytes)).await.unwrap();
    stream
}

/// Exactly these bytes come.
#[track_caller]
pub(crate) fn expect(stream: &mut TcpStream, bytes: &[u8]) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let mut got = vec![0; bytes.len()];
        soon(stream.read_exact(&mut got)).await.unwrap_or_else(|error| panic!("{error} at {caller}"));
        assert!(got == bytes, "other bytes at {caller}");
    }
}

/// These bytes come and then the end, or a reset where nothing is expected.
#[track_caller]
pub(crate) fn expect_end(stream: &mut TcpStream, bytes: &[u8]) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let mut got = Vec::new();
        match soon(stream.read_to_end(&mut got)).await {
            Ok(_) => {}
            Err(error) if bytes.is_empty() && error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error} at {caller}"),
        }
        assert_eq!(got, bytes, "at {caller}");
    }
}
