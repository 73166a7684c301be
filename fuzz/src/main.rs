//! Smoke runner of the fuzz targets: replays the kept corpus, then mutates it for a bounded time
//! from a fixed seed. A panic keeps its input in `fuzz/artifacts` and ends the run with an error.
//!
//! The same functions serve a coverage-guided fuzzer; this runner needs no nightly compiler, so
//! that the gate can run it everywhere.
#![forbid(unsafe_code)]

mod mutate;
mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::mutate::Rng;
use crate::targets::{TARGETS, Target};

#[derive(Parser)]
struct Args {
    /// Seconds of mutation for each target.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only targets whose name contains this.
    #[arg(long)]
    only: Option<String>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this one input instead (with --only naming the target).
    input: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let chosen: Vec<_> = TARGETS
        .iter()
        .filter(|t| args.only.as_ref().is_none_or(|o| t.name.contains(o)))
        .collect();
    if chosen.is_empty() {
        bail!("no such target; there are: {}", names());
    }
    for target in chosen {
        match &args.input {
            Some(path) => (target.run)(&std::fs::read(path)?),
            None => smoke(target, args.seed, Duration::from_secs_f64(args.seconds))?,
        }
    }
    Ok(())
}

fn names() -> String {
    TARGETS.iter().map(|t| t.name).collect::<Vec<_>>().join(" ")
}

fn smoke(target: &Target, seed: u64, time: Duration) -> Result<()> {
    let corpus = load_corpus(target)?;
    for input in &corpus {
        attempt(target, input)?;
    }
    let mut rng = Rng::new(seed);
    let end = Instant::now() + time;
    let mut runs = corpus.len() as u64;
    while Instant::now() < end {
        // The clock is read once per batch: most inputs take well under a microsecond.
        for _ in 0..64 {
            let input = mutate::next(&mut rng, &corpus);
            attempt(target, &input)?;
            runs += 1;
        }
    }
    println!(
        "{:<24} {:>4} corpus, {runs:>9} runs",
        target.name,
        corpus.len()
    );
    Ok(())
}

fn attempt(target: &Target, input: &[u8]) -> Result<()> {
    if std::panic::catch_unwind(|| (target.run)(input)).is_ok() {
        return Ok(());
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("artifacts")
        .join(target.name);
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("panic-{:016x}", mutate::digest(input)));
    std::fs::write(&path, input)?;
    bail!("{} panicked; input kept in {}", target.name, path.display());
}

fn load_corpus(target: &Target) -> Result<Vec<Vec<u8>>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .with_context(|| format!("{}: every target keeps a corpus", dir.display()))?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    if paths.is_empty() {
        bail!("{}: empty corpus", dir.display());
    }
    paths
        .iter()
        .map(|p| std::fs::read(p).with_context(|| p.display().to_string()))
        .collect()
}
