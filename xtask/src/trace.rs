//! `cargo xtask trace-vs-ceph`: the same client script on a real Ceph and on Spirula; the sequences
//! of message types and reply codes that the clients log must be equal.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::real_ceph::RealCeph;
use crate::{packages, run};

const OSDS: u32 = 3;

pub(crate) fn run() -> Result<()> {
    packages::ensure(packages::GATE)?;
    packages::ensure(packages::REAL_CEPH)?;
    run::run("cargo", &["build", "--quiet", "--release", "--bin", "spirula"])?;
    let dir = std::env::temp_dir().join(format!("spirula-trace-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = compare(&dir);
    if result.is_ok() {
        std::fs::remove_dir_all(&dir)?;
    }
    result
}

fn compare(dir: &Path) -> Result<()> {
    let (theirs, ours) = (dir.join("trace.ceph"), dir.join("trace.spirula"));
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let ceph = RealCeph::start(&dir.join("ceph"), OSDS, port)?;
    run::status(script(&theirs).env("CEPH_CONF", ceph.conf()))?;
    drop(ceph);
    run::status(
        Command::new(run::binary("release", "spirula"))
            .args(["vstart", "--osds", &OSDS.to_string(), "--", "bash", "tests/trace/script.sh"])
            .arg(&ours)
            .current_dir(run::root()),
    )?;
    let (theirs, ours) = (theirs.join("trace"), ours.join("trace"));
    let equal = std::fs::read(&theirs)? == std::fs::read(&ours)?;
    if !equal {
        // diff exits with 1 when it prints a difference, which is expected here.
        let _ = Command::new("diff").args(["-U3"]).arg(&theirs).arg(&ours).status();
        bail!("the traces differ; both are kept in {}", dir.display());
    }
    let lines = std::fs::read_to_string(&ours)?.lines().count();
    println!("trace: {lines} lines equal on Ceph and Spirula");
    Ok(())
}

fn script(out: &Path) -> Command {
    let mut command = Command::new("bash");
    command.arg("tests/trace/script.sh").arg(out).current_dir(run::root());
    command
}
