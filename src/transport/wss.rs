//! MQTT 3.1.1 over a WebSocket over TLS: the real thing.
