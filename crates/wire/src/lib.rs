//! Ceph's wire vocabulary: primitive encodings, types and messages.
//!
//! Invariants: pure values, no I/O, no clock, no `unsafe`. Every decoder is bounded by the bytes it
//! was given: it never panics and never allocates by a length it has not checked.
#![forbid(unsafe_code)]

// The derive macros name this crate by its outside name.
extern crate self as spirula_wire;

pub mod denc;
pub mod errno;
pub mod features;
#[doc(hidden)]
pub mod fuzzing;
pub mod message;
pub mod msg;
pub mod types;

pub use denc::{Decode, DecodeError, Encode, Features, Reader};
pub use message::{Header, Message, Payload, RawMessage};
pub use spirula_wire_derive::{Denc, Message};
