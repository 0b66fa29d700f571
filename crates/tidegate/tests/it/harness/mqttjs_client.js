// One MQTT.js client: commands on standard input, events on standard output, one JSON object a line.
"use strict";

const tell = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
let mqtt;
try {
  mqtt = require("mqtt");
} catch (error) {
  tell("error", { error: `MQTT.js is missing: \`cargo xtask test --only setup\` (${error.message})` });
  process.exit(1);
}

// The names of the other drivers, and MQTT.js's.
const NAMES = {
  SessionExpiryInterval: "sessionExpiryInterval",
  ReceiveMaximum: "receiveMaximum",
  TopicAliasMaximum: "topicAliasMaximum",
  TopicAlias: "topicAlias",
  UserProperty: "userProperties",
  ContentType: "contentType",
  ResponseTopic: "responseTopic",
  CorrelationData: "correlationData",
  MessageExpiryInterval: "messageExpiryInterval",
  PayloadFormatIndicator: "payloadFormatIndicator",
  SubscriptionIdentifier: "subscriptionIdentifier",
  AssignedClientIdentifier: "assignedClientIdentifier",
};

function made(values) {
  const properties = {};
  for (const [name, value] of Object.entries(values || {})) {
    if (name === "UserProperty") {
      properties.userProperties = {};
      for (const [key, text] of value) {
        const before = properties.userProperties[key];
        properties.userProperties[key] = before === undefined ? text : [].concat(before, text);
      }
    } else {
      properties[NAMES[name]] = name === "CorrelationData" ? Buffer.from(value) : value;
    }
  }
  return properties;
}

function plain(properties) {
  const found = {};
  for (const [name, theirs] of Object.entries(NAMES)) {
    const value = (properties || {})[theirs];
    if (value === undefined) continue;
    if (name === "UserProperty") {
      found[name] = Object.entries(value).flatMap(([key, text]) => [].concat(text).map((one) => [key, one]));
    } else if (name === "SubscriptionIdentifier") {
      found[name] = [].concat(value);
    } else {
      found[name] = Buffer.isBuffer(value) ? value.toString() : value;
    }
  }
  return found;
}

const [protocol, transport] = process.argv.slice(1);
const five = protocol === "5";
let client;
let reason = 0;

function connect(command) {
  reason = 0;
  const options = {
    clientId: command.client_id,
    protocolVersion: Number(protocol),
    protocolId: protocol === "3" ? "MQIsdp" : "MQTT",
    clean: command.clean,
    keepalive: command.keepalive,
    reconnectPeriod: 0,
    resubscribe: false,
    autoUseTopicAlias: five,
  };
  if (five) options.properties = made(command.properties);
  if (command.will) options.will = { ...command.will, payload: Buffer.from(command.will.payload) };
  const url = transport === "websockets" ? `ws://${command.host}:${command.port}/mqtt` : `mqtt://${command.host}:${command.port}`;
  client = mqtt.connect(url, options);
  client.on("message", (topic, payload, packet) =>
    tell("message", {
      topic,
      payload: payload.toString(),
      qos: packet.qos,
      retain: packet.retain,
      properties: plain(packet.properties),
    }),
  );
  // all answers in the order in which they come, also before MQTT.js has drawn its conclusions
  client.on("packetreceive", (packet) => {
    if (packet.cmd === "connack") {
      tell("connected", {
        reason: (five ? packet.reasonCode : packet.returnCode) || 0,
        session_present: packet.sessionPresent,
        properties: plain(packet.properties),
      });
    }
    if (packet.cmd === "suback") tell("subscribed", { reasons: packet.granted });
    if (packet.cmd === "unsuback") tell("unsubscribed");
    if (packet.cmd === "puback" || packet.cmd === "pubcomp") tell("published", { reason: packet.reasonCode || 0 });
    if (packet.cmd === "disconnect") reason = packet.reasonCode || 0;
  });
  client.on("close", () => tell("disconnected", { reason }));
  // a refusal in an acknowledgement is told above; what ends the connection is followed by "close"
  client.on("error", () => {});
}

tell("ready");
require("readline")
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    const properties = five ? { properties: made(command.properties) } : {};
    switch (command.do) {
      case "connect":
        connect(command);
        break;
      case "subscribe":
        client.subscribe(command.filter, { qos: command.qos, ...properties }, () => {});
        break;
      case "unsubscribe":
        client.unsubscribe(command.filter, () => {});
        break;
      case "publish":
        client.publish(
          command.topic,
          command.payload,
          { qos: command.qos, retain: command.retain || false, ...properties },
          () => command.qos === 0 && tell("published", { reason: 0 }),
        );
        break;
      case "disconnect":
        client.end();
        break;
    }
  })
  .on("close", () => process.exit(0));
