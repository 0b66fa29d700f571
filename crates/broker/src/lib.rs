//! The MQTT broker: sessions, routing, retained, delivery, takeover.
