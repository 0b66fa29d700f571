"""One paho-mqtt client: commands on standard input, events on standard output, one JSON object a line."""
import json
import sys
import threading

try:
    import paho.mqtt.client as mqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError:
    print(json.dumps({"event": "error", "error": "paho is missing: `cargo xtask test --only setup`"}))
    sys.exit(1)

write = threading.Lock()


def tell(event, **fields):
    with write:
        print(json.dumps({"event": event, **fields}), flush=True)


def number(code):
    return code.value if hasattr(code, "value") else int(code)


def plain(properties):
    if properties is None:
        return {}
    names = (name.replace(" ", "") for name in properties.names)
    found = {name: getattr(properties, name) for name in names if hasattr(properties, name)}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def made(kind, values):
    if not values:
        return None
    properties = Properties(kind)
    for name, value in values.items():
        setattr(properties, name, value.encode() if name == "CorrelationData" else value)
    return properties


client_id, protocol, clean = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "true"
transport = sys.argv[4] if len(sys.argv) > 4 else "tcp"
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=client_id,
    protocol=protocol,
    clean_session=None if protocol == 5 else clean,
    reconnect_on_failure=False,
    transport=transport,
)


def on_connect(_client, _data, flags, reason, properties):
    tell("connected", reason=number(reason), session_present=bool(flags.session_present), properties=plain(properties))


def on_disconnect(_client, _data, _flags, reason, properties):
    tell("disconnected", reason=number(reason), properties=plain(properties))


def on_message(_client, _data, message):
    tell(
        "message",
        topic=message.topic,
        payload=message.payload.decode(),
        qos=message.qos,
        retain=bool(message.retain),
        properties=plain(getattr(message, "properties", None)),
    )


client.on_connect = on_connect
client.on_disconnect = on_disconnect
client.on_message = on_message
client.on_subscribe = lambda _c, _d, _m, reasons, _p: tell("subscribed", reasons=[number(r) for r in reasons])
client.on_publish = lambda _c, _d, _m, reason, _p: tell("published", reason=number(reason))
client.on_unsubscribe = lambda _c, _d, _m, _r, _p: tell("unsubscribed")
tell("ready")

for line in sys.stdin:
    command = json.loads(line)
    act = command["do"]
    if act == "connect":
        if will := command.get("will"):
            client.will_set(
                will["topic"],
                will["payload"],
                will.get("qos", 0),
                will.get("retain", False),
                made(PacketTypes.WILLMESSAGE, will.get("properties")),
            )
        extra = {}
        if protocol == 5:
            extra = {"clean_start": clean, "properties": made(PacketTypes.CONNECT, command.get("properties"))}
        client.connect(command["host"], command["port"], command["keepalive"], **extra)
        client.loop_start()
    elif act == "subscribe":
        properties = made(PacketTypes.SUBSCRIBE, command.get("properties"))
        client.subscribe(command["filter"], command["qos"], properties=properties)
    elif act == "unsubscribe":
        client.unsubscribe(command["filter"])
    elif act == "publish":
        properties = made(PacketTypes.PUBLISH, command.get("properties"))
        retain = command.get("retain", False)
        client.publish(command["topic"], command["payload"], command["qos"], retain, properties)
    elif act == "disconnect":
        client.disconnect()
