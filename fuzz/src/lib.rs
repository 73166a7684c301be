//! Fuzz targets of every decoder, shared by the smoke runner (this package's binary) and the
//! coverage-guided fuzzer (`fuzz/coverage`); `docs/fuzzing.md` has the how-to.
//!
//! Both binaries count what they allocate, so that an input that makes a decoder reserve too much
//! is found like one that makes it panic.
#![forbid(unsafe_code)]

pub mod mutate;
pub mod seeds;
pub mod targets;

use std::alloc::System;
use std::path::{Path, PathBuf};

use cap::Cap;

/// No decoder may hold more than this for one input, which is at most 64 KiB.
pub const HELD_BYTES_MAX: usize = 64 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Makes the process abort when it comes to hold more than `extra` bytes beyond what it holds now.
pub fn limit_memory(extra: usize) {
    // The limit is above what is held, so it cannot be refused.
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated().saturating_add(extra));
}

/// The most this process has held at any time so far.
pub fn most_held() -> usize {
    ALLOCATOR.max_allocated()
}

/// The folder of the kept corpus of `target`.
pub fn corpus_dir(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target)
}
