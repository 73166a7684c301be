//! What a snapshot shows does not change once a write that knew of it, or of a newer one, succeeded.
//!
//! That it shows nothing may change: an object that was deleted forgets its snapshots if it had no
//! clones, and may be made anew by somebody who knew of fewer.

use std::collections::BTreeMap;

use super::Violation;
use super::history::{Answer, Call};
use super::model::{Snaps, Step};

const NAME: &str = "snapshot contents";

/// Whether a request can change nothing.
pub fn reads_only(call: &Call) -> bool {
    !call.request.writes()
}

/// `calls`: of one object, in the order of their beginning.
pub fn check(object: &str, calls: &[Call]) -> Option<Violation> {
    let mut shown: BTreeMap<(u64, String), (&Call, &Answer)> = BTreeMap::new();
    for call in calls {
        let (Snaps::At(snap), Some((_, answer))) = (&call.request.snaps, &call.returned) else {
            continue;
        };
        let frozen = calls.iter().any(|write| fixes(write, *snap, call.invoked));
        if !frozen {
            continue;
        }
        let steps: &[Step] = &call.request.steps;
        let key = (*snap, format!("{steps:?}"));
        if !shown.contains_key(&key) && answer.result != 0 {
            continue;
        }
        let (earlier, before) = *shown.entry(key).or_insert((call, answer));
        if (before.result, &before.outputs) != (answer.result, &answer.outputs) {
            let what = format!("{object}: snapshot {snap} showed {earlier:?} and later {call:?}");
            return Some(Violation::new(NAME, what));
        }
    }
    None
}

/// Whether a write that ended by then made the snapshot's content final. Deleting may: what is made anew
/// knows only what its first writer knew; so only a write that leaves an object counts.
fn fixes(write: &Call, snap: u64, by: u64) -> bool {
    let Snaps::Context { seq, .. } = &write.request.snaps else { return false };
    let deletes =
        |step: &Step| matches!(step, Step::Delete | Step::Truncate(_) | Step::Rollback(_));
    let leaves = !write.request.steps.iter().any(deletes);
    leaves && *seq >= snap && write.succeeded().is_some_and(|(at, _)| at < by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::history::tests::{call, data, done};
    use crate::check::model::Request;

    #[test]
    fn snapshots_do_not_change() {
        let mut write = call(Step::WriteFull("b".into()), 1, Some((2, done(1))));
        write.request.snaps = Snaps::Context { seq: 3, snaps: vec![3, 2] };
        let read = |snap, text, from| {
            let mut read = call(Step::Read, from, Some((from + 1, data(text, 0))));
            read.request = Request { snaps: Snaps::At(snap), ..read.request };
            read
        };
        let both = |snap, a, b| check("o", &[write.clone(), read(snap, a, 5), read(snap, b, 7)]);
        assert_eq!(both(3, b"a", b"a"), None);
        assert!(both(3, b"a", b"b").is_some());
        assert!(both(2, b"a", b"b").is_some());
        // Nothing was written after it yet.
        assert_eq!(both(4, b"a", b"b"), None);
    }
}
