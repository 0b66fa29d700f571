//! A device that speaks packets: full control over every byte, every step and its own address.

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::panic::Location;

use mqtt::codec::Decoded;
use mqtt::codec::decode::{Role, decode};
use mqtt::codec::encode::encode;
use mqtt::packet::{
    Ack, Connack, Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, Publish,
    PublishProperties, ReasonProperties, Suback, Subscribe, SubscribeFilter, SubscriptionOptions, Will,
};
use mqtt::{PacketId, QoS, ReasonCode, Version};
use socket2::{Domain, Socket, Type};

use super::DEADLINE;
use super::frames::Frames;

/// A connection of a device.
pub(crate) struct Device {
    stream: TcpStream,
    version: Version,
    buffer: Vec<u8>,
    ids: u16,
    /// The connection speaks WebSocket.
    frames: Option<Frames>,
}

/// A CONNECT with nothing unusual in it.
pub(crate) fn connect(version: Version, clientid: &str) -> Connect<'static> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        client_id: Cow::Owned(clientid.to_owned()),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A will with nothing unusual in it.
pub(crate) fn will(topic: &str, payload: &str) -> Will<'static> {
    Will {
        topic: Cow::Owned(topic.to_owned()),
        payload: Cow::Owned(payload.as_bytes().to_vec()),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_interval: None,
        properties: PublishProperties::default(),
    }
}

/// A message with nothing unusual in it; its packet identifier comes with [`Device::publish`].
pub(crate) fn message(topic: &str, payload: &str, qos: QoS) -> Publish<'static> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: Cow::Owned(topic.to_owned()),
        packet_id: None,
        properties: PublishProperties::default().into(),
        payload: Cow::Owned(payload.as_bytes().to_vec()),
    }
}

/// The payload as text.
pub(crate) fn payload(publish: &Publish<'_>) -> String {
    String::from_utf8(publish.payload.to_vec()).expect("text")
}

impl Device {
    /// A TCP connection, nothing more.
    #[track_caller]
    pub(crate) fn dial(to: SocketAddr) -> Self {
        Self::dial_from(Ipv4Addr::LOCALHOST.into(), to)
    }

    /// The same from an address of the device's own.
    #[track_caller]
    pub(crate) fn dial_from(from: IpAddr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of this machine");
        socket
            .connect_timeout(&to.into(), DEADLINE)
            .unwrap_or_else(|error| panic!("connecting {to}: {error}"));
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        Self { stream, version: Version::V311, buffer: Vec::new(), ids: 0, frames: None }
    }

    /// A WebSocket at the path `/mqtt`, nothing more.
    #[track_caller]
    pub(crate) fn dial_ws(to: SocketAddr) -> Self {
        Self::dial_ws_from(Ipv4Addr::LOCALHOST.into(), to)
    }

    /// The same from an address of the device's own.
    #[track_caller]
    pub(crate) fn dial_ws_from(from: IpAddr, to: SocketAddr) -> Self {
        let mut device = Self::dial_from(from, to);
        device.frames = Some(Frames::open(&mut device.stream, &mut device.buffer));
        device
    }

    /// Frames, where the device speaks WebSocket.
    pub(crate) fn frames(&mut self) -> &mut Frames {
        self.frames.as_mut().expect("a device over WebSocket")
    }

    /// Sends bytes that are frames already.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("an open connection");
    }

    /// Connects and is let in.
    #[track_caller]
    pub(crate) fn connect(to: SocketAddr, connect: &Connect<'_>) -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST.into(), to, connect).0
    }

    /// The same from an address of the device's own; the CONNACK too.
    #[track_caller]
    pub(crate) fn connect_from(
        from: IpAddr,
        to: SocketAddr,
        connect: &Connect<'_>,
    ) -> (Self, Connack<'static>) {
        let mut device = Self::dial_from(from, to);
        let connack = device.hello(connect);
        assert_eq!(connack.reason, ReasonCode::Success, "{connack:?}");
        (device, connack)
    }

    /// Sends a CONNECT and takes the CONNACK.
    #[track_caller]
    pub(crate) fn hello(&mut self, connect: &Connect<'_>) -> Connack<'static> {
        self.say_hello(connect);
        match self.receive() {
            Packet::Connack(connack) => *connack,
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// Sends a CONNECT.
    #[track_caller]
    pub(crate) fn say_hello(&mut self, connect: &Connect<'_>) {
        self.version = connect.version;
        self.send(&Packet::Connect(Box::new(connect.clone())));
    }

    /// The device's own address and port.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("its address")
    }

    /// Sends a packet.
    #[track_caller]
    pub(crate) fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes).expect("a packet that can be sent");
        self.send_bytes(&bytes);
    }

    /// Sends any bytes.
    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        match &self.frames {
            Some(_) => self.send_raw(&Frames::binary(bytes)),
            None => self.send_raw(bytes),
        }
    }

    /// The next packet, or `None` at the end of the connection.
    #[track_caller]
    pub(crate) fn receive_or_end(&mut self) -> Option<Packet<'static>> {
        let at = Location::caller();
        loop {
            match decode(&self.buffer, self.version, Role::Server, u32::MAX) {
                Ok(Decoded::Packet(packet, length)) => {
                    let packet = packet.into_owned();
                    self.buffer.drain(..length);
                    return Some(packet);
                }
                Ok(Decoded::Incomplete(_)) => {}
                Err(error) => panic!("the server sent what it must not: {error} ({at})"),
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => match &mut self.frames {
                    Some(frames) => frames.take(&mut chunk[..count], &mut self.buffer),
                    None => self.buffer.extend_from_slice(&chunk[..count]),
                },
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no packet within {DEADLINE:?}: {error} ({at})"),
            }
        }
    }

    /// The next packet.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Packet<'static> {
        self.receive_or_end().expect("a packet, not the end of the connection")
    }

    /// The next packet, which is a PUBLISH; it is acknowledged as its QoS demands.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Publish<'static> {
        let publish = match self.receive() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?} instead of PUBLISH"),
        };
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::Puback(ack(id))),
            (QoS::ExactlyOnce, Some(id)) => {
                self.send(&Packet::Pubrec(ack(id)));
                match self.receive() {
                    Packet::Pubrel(release) if release.packet_id == id => {}
                    other => panic!("{other:?} instead of PUBREL"),
                }
                self.send(&Packet::Pubcomp(ack(id)));
            }
            _ => {}
        }
        publish
    }

    /// Publishes and waits until the server has taken it over; the Reason Code of its answer.
    #[track_caller]
    pub(crate) fn publish(&mut self, mut publish: Publish<'static>) -> ReasonCode {
        let qos = publish.qos;
        let id = (qos != QoS::AtMostOnce).then(|| self.next_id());
        publish.packet_id = id;
        self.send(&Packet::Publish(publish));
        let Some(id) = id else { return ReasonCode::Success };
        match (qos, self.receive()) {
            (QoS::AtLeastOnce, Packet::Puback(ack)) if ack.packet_id == id => ack.reason,
            (QoS::ExactlyOnce, Packet::Pubrec(received)) if received.packet_id == id => {
                if received.reason < ReasonCode::UnspecifiedError {
                    self.send(&Packet::Pubrel(ack(id)));
                    match self.receive() {
                        Packet::Pubcomp(complete) if complete.packet_id == id => {}
                        other => panic!("{other:?} instead of PUBCOMP"),
                    }
                }
                received.reason
            }
            (_, other) => panic!("{other:?} instead of an acknowledgement of {id:?}"),
        }
    }

    /// Subscribes to one filter; it is granted.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: QoS) {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let suback = self.subscribe_with(filter, options, None);
        assert_eq!(suback.reasons, [ReasonCode::from_u8(qos as u8).expect("a granted QoS")]);
    }

    /// Subscribes to one filter with all options.
    #[track_caller]
    pub(crate) fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
        identifier: Option<u32>,
    ) -> Suback<'static> {
        let packet_id = self.next_id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_identifier: identifier,
            user_properties: Vec::new(),
            filters: vec![SubscribeFilter { filter: Cow::Owned(filter.to_owned()), options }],
        }));
        match self.receive() {
            Packet::Suback(suback) if suback.packet_id == packet_id => suback,
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// Proves that nothing is under way to the device: the answer to a PINGREQ comes next.
    #[track_caller]
    pub(crate) fn nothing_more(&mut self) {
        self.send(&Packet::Pingreq);
        let next = self.receive();
        assert_eq!(next, Packet::Pingresp, "there was something more");
    }

    /// Says good-bye and waits until the server has closed.
    #[track_caller]
    pub(crate) fn goodbye(self) {
        self.goodbye_with(ReasonCode::Success, DisconnectProperties::default());
    }

    /// The same with a reason and properties.
    #[track_caller]
    pub(crate) fn goodbye_with(mut self, reason: ReasonCode, properties: DisconnectProperties<'_>) {
        self.send(&Packet::Disconnect(Disconnect { reason, properties }));
        while self.receive_or_end().is_some() {}
    }

    /// The server says good-bye with this Reason Code (version 5 only) and closes.
    #[track_caller]
    pub(crate) fn expect_disconnect(mut self, reason: ReasonCode) -> Disconnect<'static> {
        let disconnect = loop {
            match self.receive() {
                Packet::Disconnect(disconnect) => break disconnect,
                // Messages may be before it.
                Packet::Publish(_) => {}
                other => panic!("{other:?} instead of DISCONNECT"),
            }
        };
        assert_eq!(disconnect.reason, reason, "{disconnect:?}");
        assert_eq!(self.receive_or_end(), None);
        disconnect
    }

    /// A CONNACK with this Reason Code and the end.
    #[track_caller]
    pub(crate) fn expect_refusal(mut self, reason: ReasonCode) {
        match self.receive() {
            Packet::Connack(connack) => assert_eq!(connack.reason, reason),
            other => panic!("{other:?} instead of CONNACK"),
        }
        self.expect_end();
    }

    /// Speaks this version from now on, without a CONNECT that says so.
    pub(crate) fn speak(&mut self, version: Version) {
        self.version = version;
    }

    /// The server closes without a word.
    #[track_caller]
    pub(crate) fn expect_end(mut self) {
        assert_eq!(self.receive_or_end(), None);
    }

    fn next_id(&mut self) -> PacketId {
        self.ids += 1;
        PacketId::new(self.ids).expect("not zero")
    }
}

/// An acknowledgement of success.
pub(crate) fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::Success, properties: ReasonProperties::default() }
}
