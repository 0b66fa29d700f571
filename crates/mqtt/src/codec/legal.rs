//! Which Reason Code may stand in which packet; both directions of the codec obey these tables.

use super::decode::Role;
use crate::ReasonCode as R;

/// Table 3-1, [MQTT-3.2.2-8].
pub(super) const fn connack(reason: R) -> bool {
    matches!(
        reason,
        R::Success
            | R::UnspecifiedError
            | R::MalformedPacket
            | R::ProtocolError
            | R::ImplementationSpecificError
            | R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::NotAuthorized
            | R::ServerUnavailable
            | R::ServerBusy
            | R::Banned
            | R::BadAuthenticationMethod
            | R::TopicNameInvalid
            | R::PacketTooLarge
            | R::QuotaExceeded
            | R::PayloadFormatInvalid
            | R::RetainNotSupported
            | R::QosNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::ConnectionRateExceeded
    )
}

/// PUBACK (table 3-4, [MQTT-3.4.2-1]) and PUBREC (table 3-5, [MQTT-3.5.2-1]): the same codes.
pub(super) const fn puback(reason: R) -> bool {
    matches!(
        reason,
        R::Success
            | R::NoMatchingSubscribers
            | R::UnspecifiedError
            | R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicNameInvalid
            | R::PacketIdentifierInUse
            | R::QuotaExceeded
            | R::PayloadFormatInvalid
    )
}

/// PUBREL (table 3-6, [MQTT-3.6.2-1]) and PUBCOMP (table 3-7, [MQTT-3.7.2-1]): the same codes.
pub(super) const fn pubrel(reason: R) -> bool {
    matches!(reason, R::Success | R::PacketIdentifierNotFound)
}

/// Table 3-8, [MQTT-3.9.3-2].
pub(super) const fn suback(reason: R) -> bool {
    matches!(
        reason,
        R::Success
            | R::GrantedQos1
            | R::GrantedQos2
            | R::UnspecifiedError
            | R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicFilterInvalid
            | R::PacketIdentifierInUse
            | R::QuotaExceeded
            | R::SharedSubscriptionsNotSupported
            | R::SubscriptionIdentifiersNotSupported
            | R::WildcardSubscriptionsNotSupported
    )
}

/// Table 3-9, [MQTT-3.11.3-2].
pub(super) const fn unsuback(reason: R) -> bool {
    matches!(
        reason,
        R::Success
            | R::NoSubscriptionExisted
            | R::UnspecifiedError
            | R::ImplementationSpecificError
            | R::NotAuthorized
            | R::TopicFilterInvalid
            | R::PacketIdentifierInUse
    )
}

/// Table 3-10, [MQTT-3.14.2-1]; and Bad authentication method, which table 2-6 gives to DISCONNECT as well and which
/// a re-authentication that fails needs (4.12.1).
pub(super) const fn disconnect(reason: R, from: Role) -> bool {
    let either = matches!(
        reason,
        R::Success
            | R::UnspecifiedError
            | R::MalformedPacket
            | R::ProtocolError
            | R::ImplementationSpecificError
            | R::BadAuthenticationMethod
            | R::TopicNameInvalid
            | R::ReceiveMaximumExceeded
            | R::TopicAliasInvalid
            | R::PacketTooLarge
            | R::MessageRateTooHigh
            | R::QuotaExceeded
            | R::AdministrativeAction
            | R::PayloadFormatInvalid
    );
    let server = matches!(
        reason,
        R::NotAuthorized
            | R::ServerBusy
            | R::ServerShuttingDown
            | R::KeepAliveTimeout
            | R::SessionTakenOver
            | R::TopicFilterInvalid
            | R::RetainNotSupported
            | R::QosNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::SharedSubscriptionsNotSupported
            | R::ConnectionRateExceeded
            | R::MaximumConnectTime
            | R::SubscriptionIdentifiersNotSupported
            | R::WildcardSubscriptionsNotSupported
    );
    either
        || match from {
            Role::Client => matches!(reason, R::DisconnectWithWill),
            Role::Server => server,
        }
}

/// Table 3-11, [MQTT-3.15.2-1].
pub(super) const fn auth(reason: R, from: Role) -> bool {
    match from {
        Role::Client => matches!(reason, R::ContinueAuthentication | R::ReAuthenticate),
        Role::Server => matches!(reason, R::Success | R::ContinueAuthentication),
    }
}
