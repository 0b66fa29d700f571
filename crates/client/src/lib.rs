//! An asynchronous MQTT client for the command line, the demo, bridges and tests.
