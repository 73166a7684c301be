//! `cargo xtask sim`: many seeds of the simulated cluster, each in a process of its own.
//!
//! A ledger per commit and make of the cluster remembers verdicts, so that a run that was interrupted
//! goes on where it was and longer ones add to it. What fails is printed with how to play it again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser as _;

use crate::run;

/// A seed that takes longer does not end.
const SECONDS_MAX: u64 = 600;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    pub(crate) seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    pub(crate) first: u64,
    /// Copies of each object.
    #[arg(long, default_value_t = 1)]
    pub(crate) size: u64,
    #[arg(long, default_value_t = 3)]
    pub(crate) osds: u64,
    #[arg(long, default_value_t = 3)]
    pub(crate) mons: u64,
    /// Faults drawn for a run.
    #[arg(long, default_value_t = 20)]
    pub(crate) faults: u64,
    /// Only faults of these names.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// No faults of these names.
    #[arg(long)]
    pub(crate) without: Option<String>,
    /// Seeds at the same time (default: one per core).
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    /// The dev profile instead of release: slower, with all assertions.
    #[arg(long)]
    pub(crate) dev: bool,
}

impl Default for Args {
    /// As the command line has it.
    fn default() -> Self {
        let Cli { args } = Cli::parse_from(["sim"]);
        args
    }
}

/// The arguments alone, for their defaults.
#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// What became of a seed.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    /// `good`, `bad` (something did not hold), `panic` or `stuck`.
    name: String,
    seconds: f64,
}

/// Verdicts by seed, in memory and in a file.
struct Ledger {
    path: PathBuf,
    file: File,
    verdicts: BTreeMap<u64, Verdict>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut build = vec!["build", "--quiet", "-p", "spirula-sim"];
    build.extend((!args.dev).then_some("--release"));
    run::run("cargo", &build)?;
    let built = run::binary(if args.dev { "debug" } else { "release" }, "spirula-sim");
    let commit = commit()?;
    let directory = run::target_dir().join("sim");
    fs::create_dir_all(&directory)?;
    // What is built meanwhile does not get in between.
    let binary = directory.join(format!("spirula-sim-{}", std::process::id()));
    fs::copy(&built, &binary).with_context(|| built.display().to_string())?;
    let path = directory.join(format!("{commit}-{}.tsv", args.make()));
    // Nobody can tell what a changed tree was when it was played.
    let ledger = Mutex::new(Ledger::open(&path, !commit.ends_with("dirty"))?);
    let wanted = args.first..args.first + args.seeds;
    let known = |seed: &u64| lock(&ledger).verdicts.contains_key(seed);
    let due: Vec<u64> = wanted.clone().filter(|seed| !known(seed)).collect();
    println!(
        "{} seeds to play, {} known; ledger {}",
        due.len(),
        args.seeds as usize - due.len(),
        path.display()
    );
    let played = play_all(args, &binary, &due, &ledger);
    fs::remove_file(&binary)?;
    played?;
    let ledger = ledger.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report(args, &commit, &ledger, wanted)
}

impl Args {
    /// Names the make of the cluster in file names.
    fn make(&self) -> String {
        let only = self.only.as_ref().map(|only| format!("-{only}")).unwrap_or_default();
        let without = self.without.as_ref().map(|names| format!("-no-{names}")).unwrap_or_default();
        let profile = if self.dev { "-dev" } else { "" };
        let Self { size, osds, mons, faults, .. } = self;
        format!("size{size}-osds{osds}-mons{mons}-faults{faults}{only}{without}{profile}")
    }

    /// What `spirula-sim` is called with.
    fn words(&self, seed: u64) -> Vec<String> {
        let Self { size, osds, mons, faults, .. } = self;
        let text = format!("{seed} --size {size} --osds {osds} --mons {mons} --faults {faults}");
        let names = [("--only", &self.only), ("--without", &self.without)];
        let names = names.into_iter().filter_map(|(option, names)| Some((option, names.clone()?)));
        let names = names.flat_map(|(option, names)| [option.to_owned(), names]);
        text.split(' ').map(str::to_owned).chain(names).collect()
    }
}

impl Ledger {
    fn open(path: &Path, keep: bool) -> Result<Self> {
        let text = if keep { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let mut options = OpenOptions::new();
        options.create(true).append(keep).write(true).truncate(!keep);
        let file = options.open(path).with_context(|| path.display().to_string())?;
        let verdicts = text.lines().filter_map(parse).collect();
        Ok(Self { path: path.to_owned(), file, verdicts })
    }

    fn add(&mut self, seed: u64, verdict: Verdict) -> Result<()> {
        writeln!(self.file, "{seed}\t{}\t{:.1}", verdict.name, verdict.seconds)?;
        self.verdicts.insert(seed, verdict);
        Ok(())
    }
}

/// A line of a ledger; a torn last one is none.
fn parse(line: &str) -> Option<(u64, Verdict)> {
    let mut fields = line.split('\t');
    let (seed, name) = (fields.next()?.parse().ok()?, fields.next()?.to_owned());
    Some((seed, Verdict { name, seconds: fields.next()?.parse().ok()? }))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn play_all(args: &Args, binary: &Path, due: &[u64], ledger: &Mutex<Ledger>) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(cores).clamp(1, due.len().max(1));
    let next = AtomicU64::new(0);
    let work = || -> Result<()> {
        while let Some(seed) = due.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let verdict = play(args, binary, *seed, &log_path(ledger, *seed))?;
            if verdict.name != "good" {
                println!("seed {seed}: {}", verdict.name);
            }
            let mut ledger = lock(ledger);
            ledger.add(*seed, verdict)?;
            if ledger.verdicts.len().is_multiple_of(100) {
                println!("{} seeds are played", ledger.verdicts.len());
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })
}

fn log_path(ledger: &Mutex<Ledger>, seed: u64) -> PathBuf {
    lock(ledger).path.with_extension(format!("{seed}.log"))
}

/// Plays one seed; what it says is kept if it fails.
fn play(args: &Args, binary: &Path, seed: u64, log: &Path) -> Result<Verdict> {
    let start = Instant::now();
    let out = File::create(log).with_context(|| log.display().to_string())?;
    let mut child = Command::new(binary)
        .args(args.words(seed))
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()
        .with_context(|| binary.display().to_string())?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > Duration::from_secs(SECONDS_MAX) {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let name = verdict(status);
    if name == "good" {
        fs::remove_file(log)?;
    }
    Ok(Verdict { name: name.to_owned(), seconds: start.elapsed().as_secs_f64() })
}

fn verdict(status: Option<ExitStatus>) -> &'static str {
    match status.map(|status| status.code()) {
        None => "stuck",
        Some(Some(0)) => "good",
        Some(Some(1)) => "bad",
        Some(_) => "panic",
    }
}

fn report(args: &Args, commit: &str, ledger: &Ledger, wanted: std::ops::Range<u64>) -> Result<()> {
    let played: Vec<(&u64, &Verdict)> = ledger.verdicts.range(wanted.clone()).collect();
    let minutes = played.iter().map(|(_, verdict)| verdict.seconds).sum::<f64>() / 60.0;
    let bad: Vec<_> = played.iter().filter(|(_, verdict)| verdict.name != "good").collect();
    for (seed, verdict) in &bad {
        let words = args.words(**seed).join(" ");
        let release = if args.dev { "" } else { "--release " };
        println!(
            "seed {seed} of commit {commit}: {}; `cargo run {release}-p spirula-sim -- {words} --verbose`; it said {}",
            verdict.name,
            ledger.path.with_extension(format!("{seed}.log")).display()
        );
    }
    let (good, last) = (played.len() - bad.len(), wanted.end - 1);
    println!(
        "commit {commit}, {}: seeds {} to {last}: {good} good, {} failed, {minutes:.1} minutes of one core",
        args.make(),
        wanted.start,
        bad.len()
    );
    if !bad.is_empty() {
        bail!("{} simulated clusters failed", bad.len());
    }
    Ok(())
}

/// The commit that is played; `-dirty` if files differ from it.
fn commit() -> Result<String> {
    let commit = run::output("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changes = run::output("git", &["status", "--porcelain", "--untracked-files=no"])?;
    let dirty = if changes.trim().is_empty() { "" } else { "-dirty" };
    Ok(format!("{}{dirty}", commit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str) -> Verdict {
        Verdict { name: name.into(), seconds: 1.5 }
    }

    #[test]
    fn a_ledger_goes_on_where_it_was() {
        let path = std::env::temp_dir().join(format!("ledger-{}.tsv", std::process::id()));
        let mut ledger = Ledger::open(&path, false).expect("open");
        ledger.add(7, verdict("good")).expect("add");
        ledger.add(8, verdict("bad")).expect("add");
        write!(ledger.file, "9\tgo").expect("torn");
        let again = Ledger::open(&path, true).expect("open");
        assert_eq!(again.verdicts, [(7, verdict("good")), (8, verdict("bad"))].into());
        assert!(Ledger::open(&path, false).expect("open").verdicts.is_empty());
        fs::remove_file(&path).expect("remove");
    }
}
