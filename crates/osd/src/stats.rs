//! Counters of a PG, kept incrementally and stored with every log entry.

use std::time::Duration;

use spirula_pg::Peering;
use spirula_store::ScrubStatus;
use spirula_wire::types::{ObjectStatCollection, ObjectStatSum, PgStat, SnapId, UTime, pg_state};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::pg::Pg;
use crate::snap::trim::Trimming;

/// The part of Ceph's `object_stat_sum_t` that changes at size 1; as a delta and as a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StatDelta {
    pub num_bytes: i64,
    pub num_objects: i64,
    pub num_objects_omap: i64,
    pub num_object_clones: i64,
    pub num_whiteouts: i64,
    pub num_rd: i64,
    pub num_rd_kb: i64,
    pub num_wr: i64,
    pub num_wr_kb: i64,
}

/// The counters of a whole PG.
pub type StatSum = StatDelta;

impl StatDelta {
    pub fn add(&mut self, d: &Self) {
        self.num_bytes += d.num_bytes;
        self.num_objects += d.num_objects;
        self.num_objects_omap += d.num_objects_omap;
        self.num_object_clones += d.num_object_clones;
        self.num_whiteouts += d.num_whiteouts;
        self.num_rd += d.num_rd;
        self.num_rd_kb += d.num_rd_kb;
        self.num_wr += d.num_wr;
        self.num_wr_kb += d.num_wr_kb;
    }

    pub fn subtract(&mut self, d: &Self) {
        self.num_bytes -= d.num_bytes;
        self.num_objects -= d.num_objects;
        self.num_objects_omap -= d.num_objects_omap;
        self.num_object_clones -= d.num_object_clones;
        self.num_whiteouts -= d.num_whiteouts;
        self.num_rd -= d.num_rd;
        self.num_rd_kb -= d.num_rd_kb;
        self.num_wr -= d.num_wr;
        self.num_wr_kb -= d.num_wr_kb;
    }

    /// What a request that changed nothing still counts.
    pub fn reads_only(self) -> Self {
        Self { num_rd: self.num_rd, num_rd_kb: self.num_rd_kb, ..Self::default() }
    }

    /// Whether applying it takes space: what a full pool refuses.
    pub fn grows(&self) -> bool {
        self.num_bytes > 0 || self.num_objects > 0
    }

    /// Whether applying it gives space back: what a full store has kept room for.
    pub fn shrinks(&self) -> bool {
        !self.grows() && (self.num_bytes < 0 || self.num_objects < 0)
    }

    fn fields(&self) -> [i64; 9] {
        [
            self.num_bytes,
            self.num_objects,
            self.num_objects_omap,
            self.num_rd,
            self.num_rd_kb,
            self.num_wr,
            self.num_wr_kb,
            self.num_object_clones,
            self.num_whiteouts,
        ]
    }
}

impl Encode for StatDelta {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.fields().iter().for_each(|v| v.encode(out, f));
    }
}

impl Decode for StatDelta {
    const MIN_SIZE: usize = 72;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            num_bytes: r.i64()?,
            num_objects: r.i64()?,
            num_objects_omap: r.i64()?,
            num_rd: r.i64()?,
            num_rd_kb: r.i64()?,
            num_wr: r.i64()?,
            num_wr_kb: r.i64()?,
            num_object_clones: r.i64()?,
            num_whiteouts: r.i64()?,
        })
    }
}

impl From<&ObjectStatSum> for StatDelta {
    fn from(sum: &ObjectStatSum) -> Self {
        Self {
            num_bytes: sum.num_bytes,
            num_objects: sum.num_objects,
            num_objects_omap: sum.num_objects_omap,
            num_object_clones: sum.num_object_clones,
            num_whiteouts: sum.num_whiteouts,
            num_rd: sum.num_rd,
            num_rd_kb: sum.num_rd_kb,
            num_wr: sum.num_wr,
            num_wr_kb: sum.num_wr_kb,
        }
    }
}

impl StatDelta {
    /// As Ceph counts: every object is one copy, and dirty since nothing flushes it.
    pub fn to_ceph(self) -> ObjectStatSum {
        ObjectStatSum {
            num_bytes: self.num_bytes,
            num_objects: self.num_objects,
            num_object_copies: self.num_objects,
            num_objects_dirty: self.num_objects,
            num_objects_omap: self.num_objects_omap,
            num_object_clones: self.num_object_clones,
            num_whiteouts: self.num_whiteouts,
            num_rd: self.num_rd,
            num_rd_kb: self.num_rd_kb,
            num_wr: self.num_wr,
            num_wr_kb: self.num_wr_kb,
            ..ObjectStatSum::default()
        }
    }
}

impl StatDelta {
    /// The same with what scrubs found, which it does not count.
    pub fn with_scrubs_of(self, sum: &ObjectStatSum) -> ObjectStatSum {
        ObjectStatSum {
            num_scrub_errors: sum.num_scrub_errors,
            num_shallow_scrub_errors: sum.num_shallow_scrub_errors,
            num_deep_scrub_errors: sum.num_deep_scrub_errors,
            ..self.to_ceph()
        }
    }
}

/// The time by the wall's and by the own clock.
pub fn clocks() -> (Duration, Duration) {
    (spirula_xstream::wall_now(), spirula_xstream::now())
}

/// What a primary reports about a PG at a time by the wall's and by its own clock. `seq` grows with every
/// report.
pub fn pg_stat(
    pg: &Pg,
    scrub: &ScrubStatus,
    epoch: u32,
    seq: u64,
    (now, own): (Duration, Duration),
) -> PgStat {
    let (state, mapping) = (pg.state.borrow(), pg.mapping.borrow());
    let machine = pg.shard.machine.borrow();
    let (log, history) = (machine.log(), &machine.info().history);
    let (wall, now, since) = (now, UTime::from(now), UTime::from(mapping.since_wall));
    let sum = state.stats.with_scrubs_of(&machine.info().stats.stats.sum);
    // What the store found since copies were compared. Damage of what belongs to no PG may concern each.
    let of_store = scrub.errors_of(Some(pg.cid)) + scrub.errors_of(None);
    let is_newer = scrub.scrubbed.0 > history.last_deep_scrub_stamp.sec.into();
    let errors = sum.num_scrub_errors.max(if is_newer { of_store as i64 } else { 0 });
    let mut stat = PgStat {
        version: machine.info().last_update,
        reported_seq: seq,
        reported_epoch: epoch,
        log_start: log.tail(),
        ondisk_log_start: log.tail(),
        created: mapping.created,
        last_epoch_clean: history.last_epoch_clean,
        stats: ObjectStatCollection { sum, ..Default::default() },
        log_size: log.len() as i64,
        ondisk_log_size: log.len() as i64,
        up: mapping.up.clone(),
        acting: mapping.acting.clone(),
        up_primary: mapping.up_primary,
        acting_primary: mapping.acting_primary,
        mapping_epoch: mapping.since,
        last_fresh: now,
        last_unstale: now,
        last_scrub: history.last_scrub,
        last_scrub_stamp: history.last_scrub_stamp,
        last_deep_scrub: history.last_deep_scrub,
        last_deep_scrub_stamp: history.last_deep_scrub_stamp,
        last_clean_scrub_stamp: history.last_clean_scrub_stamp,
        snaptrimq_len: snaptrimq_len(pg),
        purged_snaps: state.purged.iter().map(|(start, len)| (SnapId(start), len)).collect(),
        ..PgStat::default()
    };
    count_copies(&mut stat, &machine);
    stat.blocked_by = machine.blocked_by();
    let (objects, bytes) = pg.shard.copying.recovered();
    let sum = &mut stat.stats.sum;
    sum.num_objects_recovered = objects;
    sum.num_bytes_recovered = bytes;
    sum.num_deep_scrub_errors += errors - sum.num_scrub_errors;
    sum.num_scrub_errors = errors;
    stat.set_state(machine.state_bits(own) | trimming_state(pg) | pg.shard.scrub.state_bits());
    let well = pg.well.get().seen(stat.state(), now, since);
    pg.well.set(well);
    settle_times(&mut stat, &well, since);
    if errors > 0 {
        stat.set_state(stat.state() | pg_state::INCONSISTENT);
    }
    stat.last_change = since.max(UTime::from(changed_at(pg, stat.state(), wall)));
    stat
}

/// What there should be of copies, and what is not there.
fn count_copies(stat: &mut PgStat, machine: &Peering) {
    let sum = &mut stat.stats.sum;
    let size = machine.mapping().size.max(machine.mapping().acting_set().len()).max(1);
    let shortage = machine.shortage(u64::try_from(sum.num_objects).unwrap_or(0));
    sum.num_object_copies = sum.num_objects * size as i64;
    sum.num_objects_missing_on_primary = shortage.missing_on_primary as i64;
    sum.num_objects_missing = shortage.missing as i64;
    sum.num_objects_degraded = shortage.degraded as i64;
    sum.num_objects_misplaced = shortage.misplaced as i64;
    sum.num_objects_unfound = shortage.unfound as i64;
}

/// When a PG was last seen in the states that it should be in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastWell {
    active: UTime,
    clean: UTime,
    peered: UTime,
    undegraded: UTime,
    fullsized: UTime,
}

impl LastWell {
    /// After a look at `now`. What was never seen is counted from `since`, the begin of the interval: before
    /// that another primary told.
    fn seen(self, state: u64, now: UTime, since: UTime) -> Self {
        let is = |bits| state & bits != 0;
        let when = |holds: bool, before: UTime| match (holds, before == UTime::default()) {
            (true, _) => now,
            (false, true) => since,
            (false, false) => before,
        };
        Self {
            active: when(is(pg_state::ACTIVE), self.active),
            clean: when(is(pg_state::CLEAN), self.clean),
            peered: when(is(pg_state::ACTIVE | pg_state::PEERED), self.peered),
            undegraded: when(!is(pg_state::DEGRADED), self.undegraded),
            fullsized: when(!is(pg_state::UNDERSIZED), self.fullsized),
        }
    }
}

/// Since when, or when last, it was in the states that statistics tell of.
fn settle_times(stat: &mut PgStat, well: &LastWell, since: UTime) {
    let state = stat.state();
    let is = |bits| state & bits != 0;
    let active = is(pg_state::ACTIVE);
    if active {
        stat.last_became_active = since;
    }
    if active || is(pg_state::PEERED) {
        stat.last_became_peered = since;
    }
    stat.last_active = well.active;
    stat.last_clean = well.clean;
    stat.last_peered = well.peered;
    stat.last_undegraded = well.undegraded;
    stat.last_fullsized = well.fullsized;
}

/// When the PG began to be in this state, as far as reports know.
fn changed_at(pg: &Pg, state: u64, now: Duration) -> Duration {
    let (before, changed) = pg.reported.get();
    if before == state {
        return changed;
    }
    // The first report tells of no change.
    let changed = if before == 0 { Duration::ZERO } else { now };
    pg.reported.set((state, changed));
    changed
}

/// Removed snapshots that are still to be trimmed.
pub fn snaptrimq_len(pg: &Pg) -> u32 {
    u32::try_from(pg.snap_trimq.borrow().count()).unwrap_or(u32::MAX)
}

fn trimming_state(pg: &Pg) -> u64 {
    match pg.trimming.get() {
        Trimming::No => 0,
        Trimming::Waits => pg_state::SNAPTRIM_WAIT,
        Trimming::Runs => pg_state::SNAPTRIM,
        Trimming::Failed => pg_state::SNAPTRIM_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pg_is_unwell_since_it_was_last_seen_well() {
        let at = |secs| UTime::from(Duration::from_secs(secs));
        let fine = pg_state::ACTIVE | pg_state::CLEAN;
        let short = pg_state::ACTIVE | pg_state::UNDERSIZED | pg_state::DEGRADED;
        let seen = LastWell::default().seen(fine, at(10), at(5)).seen(short, at(20), at(12));
        assert_eq!((seen.fullsized, seen.undegraded, seen.clean), (at(10), at(10), at(10)));
        assert_eq!((seen.active, seen.peered), (at(20), at(20)));
        // Nobody has seen it whole here: it is not whole since this interval began.
        let new = LastWell::default().seen(short, at(20), at(12));
        assert_eq!((new.fullsized, new.clean, new.active), (at(12), at(12), at(20)));
    }
}
