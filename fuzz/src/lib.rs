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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted() {
        let block = vec![1u8; 10 << 20];
        assert!(most_held() >= block.len());
    }

    #[test]
    fn every_target_keeps_a_small_corpus() {
        let folders = std::fs::read_dir(corpus_dir("")).unwrap();
        let mut kept: Vec<_> = folders.map(|f| f.unwrap().file_name()).collect();
        let mut named: Vec<_> = targets::TARGETS.iter().map(|t| t.name).collect();
        kept.sort();
        named.sort_unstable();
        assert_eq!(kept, named);
        for name in named {
            let files = std::fs::read_dir(corpus_dir(name)).unwrap();
            let sizes: Vec<_> = files.map(|f| f.unwrap().metadata().unwrap().len()).collect();
            assert!((1..=60).contains(&sizes.len()), "{name}: {}", sizes.len());
            let bytes: u64 = sizes.iter().sum();
            assert!(bytes <= 150_000, "{name}: {bytes} bytes");
        }
    }
}
