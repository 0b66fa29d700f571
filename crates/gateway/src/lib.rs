//! The load balancer in front of MQTT brokers: preread, balance, relay.
