//! What the copies of a PG learn from each other about its past (`pg_history_t`).

use std::time::Duration;

use spirula_wire::types::{PgHistory, TimeSpan};

/// Of a PG that begins with the map of `epoch`, in which nothing was written yet.
pub fn young(epoch: u32) -> PgHistory {
    PgHistory {
        epoch_created: epoch,
        epoch_pool_created: epoch,
        last_epoch_clean: epoch,
        last_interval_clean: epoch,
        same_interval_since: epoch,
        same_up_since: epoch,
        same_primary_since: epoch,
        ..PgHistory::default()
    }
}

/// Takes over what `other` knows better; the epochs of the current interval are everybody's own.
/// Returns whether anything changed.
pub fn merge(into: &mut PgHistory, other: &PgHistory) -> bool {
    let before = into.clone();
    for (mine, theirs) in [
        (&mut into.epoch_created, other.epoch_created),
        (&mut into.epoch_pool_created, other.epoch_pool_created),
        (&mut into.last_epoch_started, other.last_epoch_started),
        (&mut into.last_interval_started, other.last_interval_started),
        (&mut into.last_epoch_clean, other.last_epoch_clean),
        (&mut into.last_interval_clean, other.last_interval_clean),
        (&mut into.last_epoch_split, other.last_epoch_split),
        (&mut into.last_epoch_marked_full, other.last_epoch_marked_full),
    ] {
        *mine = theirs.max(*mine);
    }
    into.last_scrub = other.last_scrub.max(into.last_scrub);
    into.last_deep_scrub = other.last_deep_scrub.max(into.last_deep_scrub);
    let newer = |mine: &mut spirula_wire::types::UTime, theirs: spirula_wire::types::UTime| {
        if (theirs.sec, theirs.nsec) > (mine.sec, mine.nsec) {
            *mine = theirs;
        }
    };
    newer(&mut into.last_scrub_stamp, other.last_scrub_stamp);
    newer(&mut into.last_deep_scrub_stamp, other.last_deep_scrub_stamp);
    newer(&mut into.last_clean_scrub_stamp, other.last_clean_scrub_stamp);
    into.prior_readable_until_ub = other.prior_readable_until_ub.max(into.prior_readable_until_ub);
    *into != before
}

/// A span of time as it is encoded.
pub fn span(d: Duration) -> TimeSpan {
    TimeSpan { sec: i32::try_from(d.as_secs()).unwrap_or(i32::MAX), nsec: d.subsec_nanos() as i32 }
}

/// A decoded span; what is negative or malformed counts as zero.
pub fn duration(span: TimeSpan) -> Duration {
    match (u64::try_from(span.sec), u32::try_from(span.nsec)) {
        (Ok(sec), Ok(nsec)) => Duration::from_secs(sec) + Duration::from_nanos(nsec.into()),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_part_of_a_history_is_taken() {
        let mut a =
            PgHistory { last_epoch_started: 5, same_interval_since: 9, ..Default::default() };
        let b = PgHistory {
            last_epoch_started: 4,
            last_epoch_clean: 3,
            same_interval_since: 7,
            prior_readable_until_ub: span(Duration::from_millis(1500)),
            ..Default::default()
        };
        assert!(merge(&mut a, &b));
        assert_eq!((a.last_epoch_started, a.last_epoch_clean, a.same_interval_since), (5, 3, 9));
        assert_eq!(duration(a.prior_readable_until_ub), Duration::from_millis(1500));
        assert!(!merge(&mut a, &b));
        assert_eq!(duration(TimeSpan { sec: -1, nsec: 5 }), Duration::ZERO);
    }
}
