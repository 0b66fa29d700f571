//! Retained messages by topic, found by filter.
