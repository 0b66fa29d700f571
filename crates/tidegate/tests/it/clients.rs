//! The clients that people use, each in every version and over every transport that it has, through the same scenarios.
//!
//! A test is one make in one version over one transport, on a broker of its own; what each make cannot do stands in
//! [`scenarios::Make`].

mod mosquitto;
mod rumqttc;
mod scenarios;

use scenarios::{Make, Stage};

#[test]
fn paho_3_1_over_tcp() {
    Stage::new(Make::Paho, 3, "tcp").play();
}

#[test]
fn paho_3_1_1_over_tcp() {
    Stage::new(Make::Paho, 4, "tcp").play();
}

#[test]
fn paho_5_over_tcp() {
    Stage::new(Make::Paho, 5, "tcp").play();
}

#[test]
fn paho_3_1_over_websocket() {
    Stage::new(Make::Paho, 3, "websockets").play();
}

#[test]
fn paho_3_1_1_over_websocket() {
    Stage::new(Make::Paho, 4, "websockets").play();
}

#[test]
fn paho_5_over_websocket() {
    Stage::new(Make::Paho, 5, "websockets").play();
}

#[test]
fn gmqtt_3_1_1_over_tcp() {
    Stage::new(Make::Gmqtt, 4, "tcp").play();
}

#[test]
fn gmqtt_5_over_tcp() {
    Stage::new(Make::Gmqtt, 5, "tcp").play();
}

#[test]
fn mqttjs_3_1_over_tcp() {
    Stage::new(Make::MqttJs, 3, "tcp").play();
}

#[test]
fn mqttjs_3_1_1_over_tcp() {
    Stage::new(Make::MqttJs, 4, "tcp").play();
}

#[test]
fn mqttjs_5_over_tcp() {
    Stage::new(Make::MqttJs, 5, "tcp").play();
}

#[test]
fn mqttjs_3_1_over_websocket() {
    Stage::new(Make::MqttJs, 3, "websockets").play();
}

#[test]
fn mqttjs_3_1_1_over_websocket() {
    Stage::new(Make::MqttJs, 4, "websockets").play();
}

#[test]
fn mqttjs_5_over_websocket() {
    Stage::new(Make::MqttJs, 5, "websockets").play();
}

#[test]
fn rumqttc_3_1_1_over_tcp() {
    Stage::new(Make::Rumqttc, 4, "tcp").play();
}

#[test]
fn rumqttc_5_over_tcp() {
    Stage::new(Make::Rumqttc, 5, "tcp").play();
}
