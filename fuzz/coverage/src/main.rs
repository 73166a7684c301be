//! libFuzzer over one target of `spirula_fuzz::targets`, which the variable FUZZ_TARGET names.
//! Aborts, so that libFuzzer keeps the input, on a panic and when an input needs too much memory.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spirula_fuzz::targets::{self, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    targets::find(&name).unwrap_or_else(|| {
        let names: Vec<_> = targets::TARGETS.iter().map(|t| t.name).collect();
        eprintln!("FUZZ_TARGET must be one of: {}", names.join(" "));
        std::process::exit(2)
    })
});

fuzz_target!(init: spirula_fuzz::limit_memory(spirula_fuzz::HELD_BYTES_MAX), |data: &[u8]| {
    (TARGET.run)(data);
});
