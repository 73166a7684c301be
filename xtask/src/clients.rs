//! Tests with real Ceph clients: each script of `tests/clients` runs inside a fresh temporary
//! cluster, once per I/O back end, and must exit with 0. Some run again in one whose pools have three copies.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{packages, run};

/// I/O back ends every script must pass on (`SPIRULA_IO`).
const BACKENDS: &[&str] = &["uring", "epoll"];
/// What the gate runs with three copies too: every operation, and images with all that they consist of.
const REPLICATED: &[&str] = &["80_operations", "92_rbd_clones", "96_rbd_model"];
/// Longest a script may take before `timeout` ends it.
const SCRIPT_SECONDS_MAX: &str = "240";

/// Runs every script whose name contains `filter`, with new pools of `size` copies; without a size those of
/// the gate.
pub(crate) fn run(filter: Option<&str>, size: Option<u32>) -> Result<()> {
    packages::ensure(packages::GATE)?;
    run::run("cargo", &["build", "--quiet", "--release", "--bin", "spirula"])?;
    let mut ran = 0;
    for script in scripts()? {
        if filter.is_some_and(|f| !script.contains(f)) {
            continue;
        }
        for backend in BACKENDS {
            in_cluster(&script, backend, size.unwrap_or(1))?;
            ran += 1;
        }
        if size.is_none() && REPLICATED.iter().any(|name| script.contains(name)) {
            in_cluster(&script, BACKENDS[0], 3)?;
        }
    }
    if ran == 0 {
        bail!("no script of tests/clients matches");
    }
    Ok(())
}

/// `rounds` of `kill -9` of the whole cluster under load; every acknowledged object must survive.
pub(crate) fn ledger(rounds: u32) -> Result<()> {
    packages::ensure(packages::GATE)?;
    run::run("cargo", &["build", "--quiet", "--release", "--bin", "spirula"])?;
    let spirula = run::binary("release", "spirula");
    run::status(
        Command::new("/usr/bin/python3")
            .arg("tests/crash/ledger.py")
            .arg("--spirula")
            .arg(spirula)
            .args(["--rounds", &rounds.to_string()])
            .current_dir(run::root()),
    )
}

/// Random operations against a model, in a cluster that is killed and started again meanwhile;
/// `args` are those of the script.
pub(crate) fn stress(args: &[String]) -> Result<()> {
    packages::ensure(packages::GATE)?;
    run::run("cargo", &["build", "--quiet", "--release", "--bin", "spirula"])?;
    run::status(
        Command::new("/usr/bin/python3")
            .arg("tests/stress/stress.py")
            .arg("--spirula")
            .arg(run::binary("release", "spirula"))
            .args(args)
            .current_dir(run::root()),
    )
}

/// Daemons that are killed, stopped and restarted under load; `args` are those of the script.
pub(crate) fn torture(args: &[String]) -> Result<()> {
    packages::ensure(packages::GATE)?;
    run::run("cargo", &["build", "--quiet", "--release", "--bin", "spirula"])?;
    run::status(
        Command::new("/usr/bin/python3")
            .arg("tests/torture/torture.py")
            .arg("--spirula")
            .arg(run::binary("release", "spirula"))
            .args(args)
            .current_dir(run::root()),
    )
}

fn in_cluster(script: &str, backend: &str, size: u32) -> Result<()> {
    println!("== {script} ({backend}, size {size})");
    run::status(
        Command::new("timeout")
            .args(["--kill-after=10", SCRIPT_SECONDS_MAX])
            .arg(run::binary("release", "spirula"))
            .args(["vstart", "--osds", "3", "--size", &size.to_string(), "--", "bash", script])
            .env("SPIRULA_IO", backend)
            .env("SPIRULA", run::binary("release", "spirula"))
            .current_dir(run::root()),
    )
}

fn scripts() -> Result<Vec<String>> {
    let dir = run::root().join("tests/clients");
    let mut out = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // Files with a leading underscore are sourced by the others.
        if name.ends_with(".sh") && !name.starts_with('_') {
            out.push(format!("tests/clients/{name}"));
        }
    }
    out.sort();
    Ok(out)
}
