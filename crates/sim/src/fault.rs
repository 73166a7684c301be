//! What goes wrong in a run: one table of faults, and the plan that a seed draws from it.
//!
//! Fault model. Faults begin at random times, several may be there at once, and each ends after a
//! while; a fault whose place is taken (a host that is down already) does not begin. Processes end
//! between any two steps of any of their tasks. What disks and networks do is described at the top of
//! `xstream`'s `sim/disk.rs` and `sim/net.rs`: torn and lost writes, packets that are late, lost or
//! overtaken, connections that break for one end only. Monitors keep their stores in memory that
//! outlives them; a batch that was not complete when the power went never happened.
//!
//! What destroys data (a wiped disk, damaged sectors, a monitor's lost store) begins only while every
//! copy is there, and not before the last one is mended: anything else would lose acknowledged
//! writes rightly. Weights and the membership of OSDs change only where there are several copies.
//!
//! Not modelled: a machine that computes wrongly, a disk that lies about flushes, clocks for
//! intervals that run at different speeds.

use std::ops::Range;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

mod disks;
mod hosts;
mod maps;
mod members;
mod nets;
mod stage;

pub use stage::Stage;

/// What a fault is about, from its beginning to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Hosts, OSDs or monitors, as the fault has it.
    pub about: Vec<usize>,
}

/// Where a fault makes sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Copies of each object.
    pub size: usize,
    pub mons: usize,
    pub osds: usize,
}

/// One kind of fault.
pub struct Row {
    pub name: &'static str,
    /// How often, compared to the others.
    pub weight: u32,
    /// Milliseconds from the beginning to the end.
    pub lasts: Range<u64>,
    pub needs: Needs,
    /// Begins it, by a number that chooses among what is there; `None` if it cannot be now.
    pub begin: fn(&mut Stage, u64) -> Option<Mark>,
    pub end: fn(&mut Stage, Mark),
}

const ANY: Needs = Needs { size: 1, mons: 1, osds: 1 };
const COPIES: Needs = Needs { size: 2, mons: 1, osds: 3 };
const QUORUM: Needs = Needs { size: 1, mons: 3, osds: 1 };

/// All faults. The same table is in `docs/reliability.md`.
pub const TABLE: &[Row] = &[
    row("osd-crash", 12, 0..8_000, ANY, hosts::kill_osd, hosts::start_osd),
    row("osd-power", 12, 0..8_000, ANY, hosts::cut_osd, hosts::start_osd),
    row("osd-pause", 6, 100..40_000, ANY, hosts::pause_osd, hosts::resume),
    row("osd-absence", 3, 20_000..60_000, ANY, hosts::cut_osd, hosts::start_osd),
    row("mon-crash", 4, 0..8_000, ANY, hosts::kill_mon, hosts::start_mon),
    row("mon-power", 4, 0..8_000, ANY, hosts::cut_mon, hosts::start_mon),
    row("mon-pause", 3, 100..20_000, ANY, hosts::pause_mon, hosts::resume),
    row("client-loss", 4, 500..3_000, ANY, hosts::cut_client, hosts::start_client),
    row("blackout", 2, 0..5_000, ANY, hosts::cut_all, hosts::start_all),
    row("clock-jump", 4, 1_000..30_000, ANY, hosts::jump, hosts::jump_back),
    row("partition", 6, 100..40_000, ANY, nets::split, nets::rejoin),
    row("isolation", 5, 100..40_000, ANY, nets::isolate, nets::rejoin),
    row("one-way", 6, 100..40_000, ANY, nets::one_way, nets::rejoin),
    row("delays", 4, 1_000..30_000, ANY, nets::delays, nets::quiet),
    row("resets", 4, 1_000..30_000, ANY, nets::resets, nets::quiet),
    row("reordering", 4, 1_000..30_000, ANY, nets::stalls, nets::quiet),
    row("duplicate-connections", 4, 1_000..30_000, ANY, nets::left_behind, nets::quiet),
    row("full-disk", 3, 1_000..20_000, ANY, disks::fill, disks::empty),
    row("slow-disk", 4, 1_000..30_000, ANY, disks::slow, disks::fast),
    row("dead-disk", 2, 1_000..10_000, ANY, disks::fail, disks::mend),
    row("wiped-disk", 3, 1_000..10_000, COPIES, disks::wipe, hosts::start_osd),
    row("damaged-sectors", 2, 1_000..10_000, COPIES, disks::damage, hosts::start_osd),
    row("osd-out", 4, 1_000..30_000, COPIES, maps::out, maps::in_again),
    row("osd-weight", 3, 1_000..30_000, COPIES, maps::reweight, maps::weigh_again),
    row("osd-down", 3, 500..1_000, ANY, maps::down, maps::nothing),
    row("pg-num", 4, 500..1_000, ANY, maps::pg_num, maps::nothing),
    row("pool-churn", 3, 500..10_000, ANY, maps::create_pool, maps::delete_pool),
    row("mon-store", 2, 500..5_000, QUORUM, members::lose_store, hosts::start_mon),
    row("mon-member", 3, 1_000..20_000, QUORUM, members::remove, members::add_again),
];

type Begin = fn(&mut Stage, u64) -> Option<Mark>;
type End = fn(&mut Stage, Mark);

const fn row(
    name: &'static str,
    weight: u32,
    lasts: Range<u64>,
    needs: Needs,
    begin: Begin,
    end: End,
) -> Row {
    Row { name, weight, lasts, needs, begin, end }
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Since the faults begin.
    pub at: Duration,
    pub lasts: Duration,
    /// In [`TABLE`].
    pub row: usize,
    pub pick: u64,
}

/// All that goes wrong in a run, in the order of its beginnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan(pub Vec<Planned>);

impl Plan {
    /// Between the beginnings of two faults, at most.
    const PAUSE_MAX: u64 = 6_000_000;

    /// Drawn from the seed alone: which faults are left out changes nothing about the others.
    pub fn draw(seed: u64, count: usize, here: Needs, allowed: impl Fn(&str) -> bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let fits = |row: &Row| {
            let needs = row.needs;
            needs.size <= here.size && needs.mons <= here.mons && needs.osds <= here.osds
        };
        let total: u64 = TABLE.iter().map(|row| u64::from(row.weight)).sum();
        let mut at = Duration::ZERO;
        let mut plan = Vec::new();
        for _ in 0..count {
            let [pause, weight, lasts, pick] = [(); 4].map(|()| rng.next_u64());
            at += Duration::from_micros(pause % Self::PAUSE_MAX);
            let row = row_at(weight % total);
            let range = &TABLE[row].lasts;
            let lasts = Duration::from_millis(range.start + lasts % (range.end - range.start));
            if fits(&TABLE[row]) && allowed(TABLE[row].name) {
                plan.push(Planned { at, lasts, row, pick });
            }
        }
        Self(plan)
    }
}

/// The row that `weight` falls on.
fn row_at(mut weight: u64) -> usize {
    for (number, row) in TABLE.iter().enumerate() {
        match weight.checked_sub(u64::from(row.weight)) {
            Some(rest) => weight = rest,
            None => return number,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Needs = Needs { size: 3, mons: 3, osds: 5 };

    #[test]
    fn plans_follow_from_seeds_and_reach_every_row() {
        let plan = |seed| Plan::draw(seed, 40, HERE, |_| true);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let many = Plan::draw(3, 4000, HERE, |_| true);
        for (number, row) in TABLE.iter().enumerate() {
            assert!(many.0.iter().any(|planned| planned.row == number), "{} never", row.name);
        }
        assert!(many.0.is_sorted_by_key(|planned| planned.at));
    }

    #[test]
    fn what_is_left_out_moves_nothing() {
        let all = Plan::draw(5, 60, HERE, |_| true);
        let some = Plan::draw(5, 60, HERE, |name| name.starts_with("osd"));
        assert!(some.0.len() < all.0.len());
        assert!(some.0.iter().all(|planned| all.0.contains(planned)));
        let one = Plan::draw(5, 60, Needs { size: 1, ..HERE }, |_| true);
        assert!(one.0.iter().all(|planned| TABLE[planned.row].needs.size == 1));
    }

    /// The table of the document is this one.
    #[test]
    fn every_row_is_documented() {
        let text = include_str!("../../../docs/reliability.md");
        for row in TABLE {
            let line = format!("| `{}` | {} |", row.name, row.weight);
            assert!(text.contains(&line), "docs/reliability.md lacks {line}");
        }
        let rows = text.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, TABLE.len());
    }
}
