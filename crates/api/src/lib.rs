//! Types and traits of the admin and control interfaces, and a thin client of the REST API.
