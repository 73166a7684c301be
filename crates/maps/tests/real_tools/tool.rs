//! Runs Ceph's own map tools on files in a temporary directory.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory for one test, with the tools at hand.
pub(crate) struct Tools {
    dir: tempfile::TempDir,
}

impl Tools {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs a tool, which must succeed, and returns what it printed.
    pub(crate) fn run(&self, tool: &str, args: &[&str]) -> String {
        let output = Command::new(tool)
            .args(args)
            .current_dir(self.dir.path())
            // No configuration, no keyring, no cluster.
            .env("CEPH_CONF", "/dev/null")
            .env("CEPH_ARGS", "--no-mon-config --log-to-stderr=false")
            .output()
            .unwrap_or_else(|error| missing(tool, &error));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{tool} {args:?}: {}\n{}",
            output.status,
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

fn missing(tool: &str, error: &std::io::Error) -> ! {
    panic!(
        "{tool}: {error}. These tests compare with Ceph's own tools: apt-get install -y ceph-base"
    )
}

pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// SplitMix64: the same maps in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
