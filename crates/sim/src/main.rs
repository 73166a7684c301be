//! `spirula-sim SEED`: plays one seed and says what it came to. `cargo xtask sim` plays many.
//!
//! It exits with 0 if everything held, with 1 if not; a panic of what it plays ends it as well.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use spirula_sim::run::{Options, play};

#[derive(Parser)]
#[command(about = "Plays one simulated cluster")]
struct Args {
    seed: u64,
    /// Copies of each object.
    #[arg(long, default_value_t = 1)]
    size: usize,
    #[arg(long, default_value_t = 3)]
    osds: usize,
    #[arg(long, default_value_t = 3)]
    mons: usize,
    /// Faults drawn for a run; some do not fit and are left out.
    #[arg(long, default_value_t = 20)]
    faults: usize,
    /// Only faults of these names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// No faults of these names.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Any copy may answer the clients' reads.
    #[arg(long)]
    anywhere: bool,
    /// Say what happens while it does.
    #[arg(long)]
    verbose: bool,
    /// What the daemons log, as `debug` or `spirula_osd=trace,info`.
    #[arg(long)]
    log: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(filter) = &args.log {
        // The wall's time says nothing here.
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let options = Options {
        faults: args.faults,
        only: args.only,
        without: args.without,
        anywhere: args.anywhere,
        aloud: args.verbose,
        ..Options::new(args.seed, args.size, args.osds, args.mons)
    };
    let report = play(&options);
    if !args.verbose && !report.is_good() {
        report.notes.iter().for_each(|note| println!("{note}"));
    }
    print!("{}", report.text());
    println!("seed {}: {}", args.seed, if report.is_good() { "good" } else { "BAD" });
    ExitCode::from(u8::from(!report.is_good()))
}
