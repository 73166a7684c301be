//! The object storage target: one OSD id, one xstream, one store.
//!
//! A request goes `front` (decode) -> `route` -> `admit` -> `write` or `read` -> `front` (reply);
//! each stage is one module.
#![forbid(unsafe_code)]

pub mod errno;
pub mod object;
pub mod op;
pub mod pg;
pub mod plan;
pub mod stats;
pub mod view;
