//! What the benchmarks of stores share, so that each of them does the same work and counts it alike:
//! the load and the choice of its keys, CPU, memory and latency, and the report.
//!
//! It knows no store: each engine has a package of its own beside this one, since nobody should
//! have to build RocksDB who does not compare with it.
#![forbid(unsafe_code)]

mod keys;
mod load;
mod meter;
mod report;

pub use keys::{Keys, Rng};
pub use load::{KeyName, LoadArgs};
pub use meter::{Latencies, Meter, Progress};
pub use report::{Report, print};
