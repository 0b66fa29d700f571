"""One gmqtt client: commands on standard input, events on standard output, one JSON object a line."""
import asyncio
import json
import sys

try:
    import gmqtt
    from gmqtt.mqtt.constants import MQTTv50, MQTTv311
    from gmqtt.storage import PersistentStorage
except ImportError:
    print(json.dumps({"event": "error", "error": "gmqtt is missing: `cargo xtask test --only setup`"}))
    sys.exit(1)

# The names of the other drivers, and gmqtt's.
NAMES = {
    "SessionExpiryInterval": "session_expiry_interval",
    "ReceiveMaximum": "receive_maximum",
    "TopicAliasMaximum": "topic_alias_maximum",
    "TopicAlias": "topic_alias",
    "UserProperty": "user_property",
    "ContentType": "content_type",
    "ResponseTopic": "response_topic",
    "CorrelationData": "correlation_data",
    "MessageExpiryInterval": "message_expiry_interval",
    "PayloadFormatIndicator": "payload_format_id",
    "SubscriptionIdentifier": "subscription_identifier",
    "AssignedClientIdentifier": "assigned_client_identifier",
}
SEVERAL = ("UserProperty", "SubscriptionIdentifier")


def tell(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def made(values):
    found = {NAMES[name]: value for name, value in (values or {}).items()}
    if "user_property" in found:
        found["user_property"] = [tuple(pair) for pair in found["user_property"]]
    if "correlation_data" in found:
        found["correlation_data"] = found["correlation_data"].encode()
    return found


def plain(properties):
    found = {}
    for name, theirs in NAMES.items():
        values = properties.get(theirs)
        if isinstance(values, list) and values:
            values = [v.decode() if isinstance(v, bytes) else v for v in values]
            found[name] = values if name in SEVERAL else values[0]
    return found


class Told(PersistentStorage):
    """Forgetting a message means that it was acknowledged."""

    def remove_message_by_mid(self, mid):
        super().remove_message_by_mid(mid)
        tell("published")


def on_disconnect(_client, packet, exc=None):
    # the packet is a Reason Code and properties, or nothing
    tell("disconnected", reason=packet[0] if packet else 0)


def on_message(_client, topic, payload, qos, properties):
    retain = bool(properties.get("retain"))
    tell("message", topic=topic, payload=payload.decode(), qos=qos, retain=retain, properties=plain(properties))
    return 0


async def main(client_id, protocol, clean):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tell("ready")
    client = None
    while line := await reader.readline():
        command = json.loads(line)
        act, properties = command["do"], made(command.get("properties"))
        if act == "connect":
            will = command.get("will")
            if will:
                will = gmqtt.Message(will["topic"], will["payload"], will.get("qos", 0), will.get("retain", False))
            client = gmqtt.Client(client_id, clean_session=clean, will_message=will, persistent_storage=Told(), **properties)
            client.set_config({"reconnect_retries": 0, "reconnect_delay": 3600})
            client.on_connect = lambda _c, flags, reason, found: tell(
                "connected", reason=reason, session_present=bool(flags & 1), properties=plain(found)
            )
            client.on_disconnect = on_disconnect
            client.on_message = on_message
            client.on_subscribe = lambda _c, _m, reasons, _p: tell("subscribed", reasons=list(reasons))
            client.on_unsubscribe = lambda _c, _m, _r: tell("unsubscribed")
            await client.connect(
                command["host"],
                command["port"],
                keepalive=command["keepalive"],
                version=MQTTv50 if protocol == 5 else MQTTv311,
            )
        elif act == "subscribe":
            client.subscribe(command["filter"], command["qos"], **properties)
        elif act == "unsubscribe":
            client.unsubscribe(command["filter"])
        elif act == "publish":
            retain = command.get("retain", False)
            client.publish(command["topic"], command["payload"], command["qos"], retain, **properties)
            if command["qos"] == 0:
                tell("published")
        elif act == "disconnect":
            await client.disconnect()
            tell("disconnected", reason=0)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "true"))
