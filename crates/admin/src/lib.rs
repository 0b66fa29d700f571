//! The HTTP server: REST, OpenAPI document, metrics, probes.
