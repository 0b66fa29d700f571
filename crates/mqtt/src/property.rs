//! The property identifiers of MQTT 5.0 (2.2.2.2, table 2-4), by name.
//!
//! Only the numbers and the types of the values; which packet carries which property is said by the codec.

/// How the value of a property goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// One byte.
    Byte,
    /// Two bytes, big endian.
    TwoByteInteger,
    /// Four bytes, big endian.
    FourByteInteger,
    /// One to four bytes (1.5.5).
    VariableByteInteger,
    /// Length and that many bytes (1.5.6).
    BinaryData,
    /// Length and that many bytes of UTF-8 (1.5.4).
    Utf8String,
    /// Two strings (1.5.7).
    Utf8StringPair,
}

macro_rules! properties {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $title:literal, $value:ident;)*) => {
        /// A property identifier. All of them are below 0x80, so one byte carries them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Property {
            $($(#[$doc])* $variant = $id,)*
        }

        impl Property {
            /// Every property of table 2-4, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The property with this identifier; `None` where the specification defines none.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The specification's name.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }

            /// How its value goes on the wire.
            pub const fn value_type(self) -> ValueType {
                match self {
                    $(Self::$variant => ValueType::$value,)*
                }
            }
        }
    };
}

properties! {
    /// PUBLISH, will: 1 says that the payload is UTF-8.
    PayloadFormatIndicator = 0x01, "Payload Format Indicator", Byte;
    /// PUBLISH, will: seconds.
    MessageExpiryInterval = 0x02, "Message Expiry Interval", FourByteInteger;
    /// PUBLISH, will: for example a MIME type.
    ContentType = 0x03, "Content Type", Utf8String;
    /// PUBLISH, will.
    ResponseTopic = 0x08, "Response Topic", Utf8String;
    /// PUBLISH, will.
    CorrelationData = 0x09, "Correlation Data", BinaryData;
    /// PUBLISH to a client, SUBSCRIBE.
    SubscriptionIdentifier = 0x0B, "Subscription Identifier", VariableByteInteger;
    /// CONNECT, CONNACK, DISCONNECT of a client: seconds.
    SessionExpiryInterval = 0x11, "Session Expiry Interval", FourByteInteger;
    /// CONNACK.
    AssignedClientIdentifier = 0x12, "Assigned Client Identifier", Utf8String;
    /// CONNACK: seconds.
    ServerKeepAlive = 0x13, "Server Keep Alive", TwoByteInteger;
    /// CONNECT, CONNACK, AUTH.
    AuthenticationMethod = 0x15, "Authentication Method", Utf8String;
    /// CONNECT, CONNACK, AUTH.
    AuthenticationData = 0x16, "Authentication Data", BinaryData;
    /// CONNECT.
    RequestProblemInformation = 0x17, "Request Problem Information", Byte;
    /// Will: seconds.
    WillDelayInterval = 0x18, "Will Delay Interval", FourByteInteger;
    /// CONNECT.
    RequestResponseInformation = 0x19, "Request Response Information", Byte;
    /// CONNACK.
    ResponseInformation = 0x1A, "Response Information", Utf8String;
    /// CONNACK, DISCONNECT of a server.
    ServerReference = 0x1C, "Server Reference", Utf8String;
    /// Every answer.
    ReasonString = 0x1F, "Reason String", Utf8String;
    /// CONNECT, CONNACK.
    ReceiveMaximum = 0x21, "Receive Maximum", TwoByteInteger;
    /// CONNECT, CONNACK.
    TopicAliasMaximum = 0x22, "Topic Alias Maximum", TwoByteInteger;
    /// PUBLISH.
    TopicAlias = 0x23, "Topic Alias", TwoByteInteger;
    /// CONNACK.
    MaximumQos = 0x24, "Maximum QoS", Byte;
    /// CONNACK.
    RetainAvailable = 0x25, "Retain Available", Byte;
    /// Every packet that has properties.
    UserProperty = 0x26, "User Property", Utf8StringPair;
    /// CONNECT, CONNACK: bytes.
    MaximumPacketSize = 0x27, "Maximum Packet Size", FourByteInteger;
    /// CONNACK.
    WildcardSubscriptionAvailable = 0x28, "Wildcard Subscription Available", Byte;
    /// CONNACK.
    SubscriptionIdentifierAvailable = 0x29, "Subscription Identifier Available", Byte;
    /// CONNACK.
    SharedSubscriptionAvailable = 0x2A, "Shared Subscription Available", Byte;
}

impl Property {
    /// The identifier as it goes on the wire.
    pub const fn id(self) -> u8 {
        self as u8
    }
}
