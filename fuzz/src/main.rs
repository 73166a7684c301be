//! Smoke runner of the fuzz targets: replays the kept corpus, then mutates it for a bounded time
//! from a fixed seed. A panic, a large allocation or a slow input ends the run with an error and
//! keeps its input in `fuzz/artifacts`.
//!
//! The same targets serve a coverage-guided fuzzer; this runner needs no nightly compiler, so that
//! the gate can run it everywhere.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;

use spirula_fuzz::mutate::{self, Rng};
use spirula_fuzz::targets::{TARGETS, Target};
use spirula_fuzz::{HELD_BYTES_MAX, corpus_dir, limit_memory, most_held, seeds};

/// Far above what any input takes, so that a busy machine does not fail the gate.
const SLOW: Duration = Duration::from_secs(2);

/// What runs now, for the panic hook: release builds abort, so nothing can be caught.
static CURRENT: Mutex<(&str, Vec<u8>)> = Mutex::new(("", Vec::new()));

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
    /// Print the names of the targets.
    #[arg(long)]
    list: bool,
    /// Write the seeds that come from the crates' fixtures to DIR/<target> instead.
    #[arg(long, value_name = "DIR")]
    write_seeds: Option<PathBuf>,
    /// Run these inputs instead (with --only naming the target), and print the time of each.
    inputs: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(dir) = &args.write_seeds {
        return seeds::write(dir);
    }
    let chosen: Vec<_> =
        TARGETS.iter().filter(|t| args.only.as_ref().is_none_or(|o| t.name.contains(o))).collect();
    if args.list || chosen.is_empty() {
        TARGETS.iter().for_each(|t| println!("{}", t.name));
        return Ok(());
    }
    keep_input_of_a_panic();
    limit_memory(16 * HELD_BYTES_MAX);
    for target in chosen {
        if args.inputs.is_empty() {
            smoke(target, args.seed, Duration::from_secs_f64(args.seconds))?;
        } else {
            replay(target, &args.inputs)?;
        }
    }
    Ok(())
}

fn replay(target: &Target, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let input = std::fs::read(path).with_context(|| path.display().to_string())?;
        let start = Instant::now();
        attempt(target, &input)?;
        println!("{:>12?} {}", start.elapsed(), path.display());
    }
    Ok(())
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
        let input = mutate::next(&mut rng, &corpus);
        attempt(target, &input)?;
        runs += 1;
    }
    println!("{:<24} {:>4} corpus, {runs:>9} runs", target.name, corpus.len());
    Ok(())
}

fn attempt(target: &Target, input: &[u8]) -> Result<()> {
    {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        current.0 = target.name;
        current.1.clear();
        current.1.extend_from_slice(input);
    }
    let (held, start) = (most_held(), Instant::now());
    (target.run)(input);
    let took = start.elapsed();
    if took > SLOW {
        bail!("{} took {took:?}; {}", target.name, keep("slow"));
    }
    if most_held() > held.max(HELD_BYTES_MAX) {
        bail!("{} held {} bytes; {}", target.name, most_held(), keep("large"));
    }
    Ok(())
}

fn keep_input_of_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        eprintln!("{}", keep("panic"));
    }));
}

/// Writes the current input to its artifact file; says where it is, or why not.
fn keep(kind: &str) -> String {
    let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let (name, input) = &*current;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(name);
    let path = dir.join(format!("{kind}-{}", mutate::name(input)));
    match std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, input)) {
        Ok(()) => format!("input kept in {}", path.display()),
        Err(e) => format!("input lost ({}: {e})", path.display()),
    }
}

fn load_corpus(target: &Target) -> Result<Vec<Vec<u8>>> {
    let dir = corpus_dir(target.name);
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .with_context(|| format!("{}: every target keeps a corpus", dir.display()))?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    if paths.is_empty() {
        bail!("{}: empty corpus", dir.display());
    }
    paths.iter().map(|p| std::fs::read(p).with_context(|| p.display().to_string())).collect()
}
