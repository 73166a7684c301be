//! Whole runs of the simulator: seeds that once failed, a few others, and that a seed plays again exactly.
//!
//! `cargo xtask sim` plays many more.

use spirula_sim::run::{Options, Report, play};

/// A run that shows a bug if it comes back.
struct Found {
    bug: &'static str,
    seed: u64,
    /// Copies, OSDs, monitors.
    make: (usize, usize, usize),
    faults: usize,
    only: &'static [&'static str],
}

/// A seed means another run when the table of faults or the load change: then one is looked for that fails
/// without what mended the bug.
const FOUND: &[Found] = &[
    Found {
        bug: "a client did not send again what a PG that was split had dropped",
        seed: 2,
        make: (1, 3, 3),
        faults: 60,
        only: &["pg-num", "slow-disk", "reordering"],
    },
    Found {
        bug: "a primary whose store had stopped sent on writes that did not see each other",
        seed: 52,
        make: (3, 4, 3),
        faults: 25,
        only: &["dead-disk", "clock-jump", "slow-disk"],
    },
];

fn good(options: &Options) -> Report {
    let report = play(options);
    let Options { spec, .. } = options;
    let how = format!(
        "spirula-sim {} --size {} --osds {} --mons {} --faults {} --only {}",
        spec.seed,
        spec.size,
        spec.osds,
        spec.mons,
        options.faults,
        options.only.join(",")
    );
    assert!(report.is_good(), "{how}\n{}\n{}", report.notes.join("\n"), report.text());
    assert!(report.answered > 100, "{how}: nothing was tested");
    report
}

#[test]
fn what_was_found_stays_mended() {
    for found in FOUND {
        println!("seed {}: {}", found.seed, found.bug);
        let (size, osds, mons) = found.make;
        let only = found.only.iter().map(|name| (*name).to_owned()).collect();
        let options = Options::new(found.seed, size, osds, mons);
        good(&Options { faults: found.faults, only, ..options });
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
