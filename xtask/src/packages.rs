//! Debian packages that the gate needs: which program proves that a package is there.
//!
//! A missing program is installed when this process may (root on a machine with apt); else the
//! error carries the command to run.

use std::path::Path;

use anyhow::{Result, bail};

use crate::run;

/// `(package, a file that proves it is installed)`.
type Package = (&'static str, &'static str);

/// What `cargo xtask verify` needs.
pub(crate) const GATE: &[Package] = &[
    ("ceph-common", "/usr/bin/rados"),
    ("ceph-base", "/usr/bin/osdmaptool"),
    ("python3-rados", "/usr/share/doc/python3-rados"),
    ("uuid-runtime", "/usr/bin/uuidgen"),
    ("python3-rbd", "/usr/share/doc/python3-rbd"),
    ("fio", "/usr/bin/fio"),
    ("tgt", "/usr/sbin/tgtd"),
    ("tgt-rbd", "/usr/share/doc/tgt-rbd"),
    ("libiscsi-bin", "/usr/bin/iscsi-ls"),
    ("rbd-fuse", "/usr/bin/rbd-fuse"),
    ("fuse", "/usr/bin/fusermount"),
    ("e2fsprogs", "/usr/sbin/mke2fs"),
    // Libraries of the QEMU that `tests/clients/_qemu.sh` unpacks.
    ("libaio1", "/usr/share/doc/libaio1"),
    ("libfuse3-3", "/usr/share/doc/libfuse3-3"),
    ("libgnutls30", "/usr/share/doc/libgnutls30"),
    ("liburing2", "/usr/share/doc/liburing2"),
];

/// What comparing with a real Ceph cluster needs besides.
pub(crate) const REAL_CEPH: &[Package] = &[
    ("ceph-mon", "/usr/bin/ceph-mon"),
    ("ceph-osd", "/usr/bin/ceph-osd"),
    ("ceph-mgr", "/usr/bin/ceph-mgr"),
    ("ceph-mgr-modules-core", "/usr/share/ceph/mgr/balancer"),
];

/// What measuring images needs besides.
pub(crate) const BENCH: &[Package] =
    &[("fio", "/usr/bin/fio"), ("python3-rbd", "/usr/share/doc/python3-rbd")];

/// What comparing with RocksDB needs: the library, and what reads its header for the bindings.
pub(crate) const ROCKSDB: &[Package] = &[
    ("librocksdb-dev", "/usr/include/rocksdb/c.h"),
    ("libclang-dev", "/usr/share/doc/libclang-dev"),
    ("g++", "/usr/bin/g++"),
];

/// Installs what is missing of `packages`.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<_> =
        packages.iter().filter(|(_, proof)| !Path::new(proof).exists()).map(|(p, _)| *p).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let is_root = run::output("id", &["-u"])?.trim() == "0";
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        bail!("missing packages; run: sudo apt-get install --no-install-recommends {names}");
    }
    run::run("apt-get", &["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(missing);
    run::status(
        std::process::Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"),
    )
}
