//! Whole runs of the simulator: seeds that once failed, a few others, and that a seed plays again exactly.
//!
//! `cargo xtask sim` plays many more.

use spirula_sim::run::{Options, Report, play};

/// A run that showed a bug once.
struct Found {
    /// What went wrong.
    bug: &'static str,
    seed: u64,
    size: usize,
    osds: usize,
    mons: usize,
}

const FOUND: &[Found] = &[
    Found {
        bug: "a client that was cut off for longer than TCP tries waited for an answer forever",
        seed: 5,
        size: 1,
        osds: 3,
        mons: 3,
    },
    Found {
        bug: "what a failed write had staged was read from an OSD that was about to stop",
        seed: 23,
        size: 1,
        osds: 3,
        mons: 3,
    },
    Found {
        bug: "a client did not send again what a PG that was split had dropped",
        seed: 41,
        size: 1,
        osds: 3,
        mons: 3,
    },
];

fn good(options: &Options) -> Report {
    let report = play(options);
    let Options { spec, .. } = options;
    let how = format!(
        "spirula-sim {} --size {} --osds {} --mons {}",
        spec.seed, spec.size, spec.osds, spec.mons
    );
    assert!(report.is_good(), "{how}\n{}\n{}", report.notes.join("\n"), report.text());
    assert!(report.answered > 100, "{how}: nothing was tested");
    report
}

#[test]
fn what_was_found_stays_mended() {
    for found in FOUND {
        println!("seed {}: {}", found.seed, found.bug);
        good(&Options::new(found.seed, found.size, found.osds, found.mons));
    }
}

#[test]
fn equal_seeds_make_equal_runs() {
    let options = Options::new(12, 1, 3, 3);
    let report = good(&options);
    assert_eq!(report, play(&options));
    assert_ne!(report.trace, play(&Options::new(13, 1, 3, 3)).trace);
}

#[test]
fn makes_of_clusters() {
    for (osds, mons) in [(1, 1), (5, 3), (2, 5)] {
        good(&Options::new(21, 1, osds, mons));
    }
}
