//! What every role of the process stands on: configuration, clock, workers, events, metrics, telemetry, drain.
