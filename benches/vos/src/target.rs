//! The file or device that is measured on.
//!
//! Invariant: nothing that was there before is written to unless the caller said so, and only what was
//! made here is removed.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::Args;

/// Room beside the values: WAL, space map, and pages between two checkpoints.
const SPARE_BYTES: u64 = 1 << 30;
/// Index of one value, when pages are half full.
const INDEX_BYTES: u64 = 384;
const BLOCK: u64 = 4096;

/// A path to measure on; the file goes with it if it was made for it.
pub(crate) struct Target {
    path: PathBuf,
    /// Bytes to reserve; a device is used as it is.
    bytes: Option<u64>,
    made: bool,
}

impl Target {
    pub(crate) fn new(args: &Args) -> Result<Target> {
        let path = args.file.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("vos-perf-{}.dev", std::process::id()))
        });
        let there = std::fs::metadata(&path).ok();
        if there.is_some() && !args.overwrite {
            bail!("{}: exists; with --overwrite everything on it is lost", path.display());
        }
        let is_device = there.as_ref().is_some_and(|m| m.file_type().is_block_device());
        let bytes = (!is_device).then(|| args.device_bytes.unwrap_or_else(|| bytes_for(args)));
        Ok(Target { path, bytes, made: there.is_none() })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.made {
            // It may not have come to be.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bytes_for(args: &Args) -> u64 {
    let size = args.load.size as u64;
    let data = if size < BLOCK { size } else { size.next_multiple_of(BLOCK) };
    args.load
        .keys()
        .saturating_mul(data + INDEX_BYTES)
        .saturating_mul(2)
        .saturating_add(SPARE_BYTES)
}
