//! The versioned object store: container -> object -> dkey -> akey -> value or array of extents.
//!
//! Pure logic: no I/O, no clock, no randomness, no `unsafe`. A read answers or names the pages it
//! is missing; [`Tx`] is staged all or nothing and gives one WAL record and its data writes; what to
//! write where and when is the caller's part (`spirula-store`).
#![forbid(unsafe_code)]

mod tx;
mod types;

pub use tx::Tx;
pub use types::*;
