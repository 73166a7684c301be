//! Running other programs from the workspace root, with errors that name the command.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lives in the workspace").into()
}

/// Runs `program` in the workspace root and fails unless it exits with 0.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    status(Command::new(program).args(args).current_dir(root()))
}

/// Runs a prepared command and fails unless it exits with 0.
pub(crate) fn status(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("+ {shown}");
    // `cargo run` set it for this program: a cargo below would build again what it went into.
    command.env_remove("CARGO_PKG_VERSION");
    let status = command.status().with_context(|| format!("could not start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// The standard output of `program`, which must exit with 0.
pub(crate) fn output(program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program)
        .args(args)
        .current_dir(root())
        .output()
        .with_context(|| format!("could not start `{program}`"))?;
    if !out.status.success() {
        bail!("`{program} {}` failed: {}", args.join(" "), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where cargo puts a binary of `profile` ("release" or "debug").
pub(crate) fn binary(profile: &str, name: &str) -> PathBuf {
    target_dir().join(profile).join(name)
}
