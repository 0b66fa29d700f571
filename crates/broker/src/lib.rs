//! The MQTT broker: sessions, routing, retained, delivery, takeover.

mod retained;
mod router;
