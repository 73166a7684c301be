//! How a copy's log becomes the authoritative one: where both part, which entries never were part of
//! the history and are undone, and which objects are missing then.
//!
//! Undoing is one rule for every entry: in the objects of the divergent entries the store discards
//! what was written since the oldest of them. It keeps those versions as long as the horizon
//! (what every acting copy holds) is below them. Where it is not, which only an operator's word about
//! lost OSDs can bring about, the object is fetched anew.
//!
//! Invariant: the primary finds the same missing set for a copy as the copy for itself.

use std::collections::BTreeMap;

use spirula_wire::types::{EVersion, HObject, PgLogEntry, PgLogMsg};

use crate::log::PgLog;
use crate::missing::{Missing, MissingObject};

/// What the store has to undo.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rewind {
    /// The newest entry that stays.
    pub to: EVersion,
    /// In these objects every version above this epoch of the store is discarded.
    pub above_epoch: u64,
    pub objects: Vec<HObject>,
    /// Entries that go, newest first.
    pub entries: Vec<PgLogEntry>,
}

/// The newest version that both logs went through; `None` if they do not connect.
pub fn common(auth: &PgLog, copy: &PgLog) -> Option<EVersion> {
    if copy.head() < auth.tail() || auth.head() < copy.tail() {
        return None;
    }
    let shared = copy.entries().rev().map(|e| e.version).find(|&v| auth.passes(v));
    // At or below the newer tail everything is the same: trimmed is what all have.
    let floor = auth.tail().max(copy.tail());
    Some(shared.unwrap_or(floor).max(floor.min(copy.head()).min(auth.head())))
}

/// Undoes in `log` and `missing` what is not part of the history.
pub fn rewind(
    log: &mut PgLog,
    missing: &mut Missing,
    to: EVersion,
    backfilled: &HObject,
) -> Option<Rewind> {
    let (horizon, undoes) = (log.horizon(), log.limits().undoes);
    let entries = log.rewind(to);
    entries.last()?;
    // Epochs ascend with versions: nothing that stays lies between. Entries that change nothing have none.
    let oldest = entries.iter().rev().find(|e| e.is_update());
    let below = |e: &PgLogEntry| Some(e.store_epoch()?.saturating_sub(1));
    let newest_left = || log.entries().rev().find_map(PgLogEntry::store_epoch);
    let above = oldest.and_then(below).or_else(newest_left);
    // The oldest entry of each object says what was before.
    let mut objects: BTreeMap<HObject, (EVersion, bool)> = BTreeMap::new();
    for entry in entries.iter().filter(|e| e.is_update() && e.object <= *backfilled) {
        objects.insert(
            entry.object.clone(),
            (entry.prior_version, undoes && entry.version > horizon && above.is_some()),
        );
    }
    let mut discard = Vec::new();
    for (object, (prior, can_undo)) in objects {
        let before = log.last_update_of(&object, to);
        let target = before.map_or(prior, |e| e.version);
        let delete = before.is_some_and(PgLogEntry::is_delete);
        if undo(
            missing,
            &object,
            prior,
            MissingObject { need: target, have: prior, delete },
            to,
            can_undo,
        ) {
            discard.push(object);
        }
    }
    // Without any epoch only what was made since goes, whole.
    Some(Rewind { to, above_epoch: above.unwrap_or(0), objects: discard, entries })
}

/// Brings one object of the missing set back; returns whether the store has something to discard.
fn undo(
    missing: &mut Missing,
    object: &HObject,
    prior: EVersion,
    before: MissingObject,
    to: EVersion,
    can_undo: bool,
) -> bool {
    let nothing = EVersion::default();
    let (have, discards) = match missing.get(object) {
        // It never got the newest of what goes; maybe an older one.
        Some(item) if item.have > to => (prior, true),
        Some(item) => (item.have, false),
        None => (prior, true),
    };
    let whole = if missing.contains(object) { have == before.need } else { true };
    if discards && !can_undo {
        missing.remove(object);
        if before.need != nothing {
            missing.set(object.clone(), MissingObject { have: nothing, ..before });
        }
        return before.need == nothing;
    }
    if whole || before.need == nothing {
        missing.remove(object);
    } else {
        missing.set(object.clone(), MissingObject { have, ..before });
    }
    discards
}

/// Makes `log` the authoritative one, which it connects with; the entries that are new have their
/// objects in `missing`.
pub fn adopt(
    log: &mut PgLog,
    missing: &mut Missing,
    auth: &PgLog,
    backfilled: &HObject,
) -> Option<Rewind> {
    let common = common(auth, log)?;
    let undone = rewind(log, missing, common, backfilled);
    if auth.tail() < log.tail() {
        let older = auth.entries().filter(|e| e.version <= log.tail()).cloned().collect();
        log.extend_back(auth.tail(), older);
    }
    for entry in auth.after(common) {
        if entry.object <= *backfilled {
            missing.add_event(entry);
        }
        log.append(entry.clone());
    }
    // A log that was split may end with entries that are another PG's.
    log.set_head(auth.head());
    log.add_dups(auth.dups().cloned().collect());
    log.advance_horizon(auth.horizon());
    Some(undone.unwrap_or(Rewind { to: common, ..Rewind::default() }))
}

/// Nobody makes the copy undo its divergent entries: it lacks their objects.
pub fn keep_divergent(auth: &PgLog, theirs: &PgLogMsg, missing: &mut Missing) {
    let copy = PgLog::from_wire(theirs.clone(), auth.limits());
    let Some(common) = common(auth, &copy) else {
        return;
    };
    for entry in copy.after(common).filter(|e| e.is_update()) {
        let have = EVersion::default();
        let item = MissingObject { need: entry.prior_version, have, delete: false };
        missing.set(entry.object.clone(), item);
    }
}

/// What the copy behind `theirs` will miss once its divergent entries are undone, and its newest
/// entry then.
pub fn peer_missing(
    auth: &PgLog,
    theirs: PgLogMsg,
    mut missing: Missing,
    backfilled: &HObject,
) -> Option<(Missing, EVersion)> {
    let mut copy = PgLog::from_wire(theirs, auth.limits());
    let common = common(auth, &copy)?;
    rewind(&mut copy, &mut missing, common, backfilled);
    Some((missing, common))
}

#[cfg(test)]
mod tests {
    use spirula_wire::types::log_op;

    use super::*;
    use crate::log::tests::{log, object, v};

    const NOTHING: EVersion = EVersion { epoch: 0, version: 0 };

    fn everything() -> HObject {
        HObject::max()
    }

    fn needs(m: &Missing) -> Vec<(HObject, EVersion, EVersion)> {
        m.iter().map(|(o, i)| (o.clone(), i.need, i.have)).collect()
    }

    #[test]
    fn a_copy_that_is_behind_misses_what_is_new() {
        let auth = log(v(0, 0), &[("a", v(1, 1)), ("b", v(1, 2)), ("a", v(2, 3))]);
        let mut copy = log(v(0, 0), &[("a", v(1, 1))]);
        let mut missing = Missing::default();
        let undone = adopt(&mut copy, &mut missing, &auth, &everything()).unwrap();
        assert_eq!((undone.to, undone.objects.len()), (v(1, 1), 0));
        assert_eq!(
            needs(&missing),
            [(object("b"), v(1, 2), NOTHING), (object("a"), v(2, 3), v(1, 1))]
        );
        assert_eq!(copy.head(), v(2, 3));
    }

    #[test]
    fn divergent_entries_are_undone() {
        // In epoch 2 another primary went on from 1'1, while this copy alone had taken 1'2 and 1'3.
        let auth = log(v(0, 0), &[("a", v(1, 1)), ("b", v(2, 2))]);
        let mut copy = log(v(0, 0), &[("a", v(1, 1)), ("a", v(1, 2)), ("c", v(1, 3))]);
        let theirs = copy.to_wire(NOTHING, false);
        let mut missing = Missing::default();
        let undone = adopt(&mut copy, &mut missing, &auth, &everything()).unwrap();
        assert_eq!((undone.to, undone.above_epoch), (v(1, 1), 19));
        assert_eq!(undone.objects, [object("a"), object("c")]);
        assert_eq!(
            undone.entries.iter().map(|e| e.version).collect::<Vec<_>>(),
            [v(1, 3), v(1, 2)]
        );
        assert_eq!(needs(&missing), [(object("b"), v(2, 2), NOTHING)]);
        let (mut seen, at) =
            peer_missing(&auth, theirs, Missing::default(), &everything()).unwrap();
        auth.after(at).for_each(|e| seen.add_event(e));
        assert_eq!(seen, missing);
    }

    #[test]
    fn a_divergent_entry_that_was_missing_needs_no_discard() {
        let auth = log(v(0, 0), &[("a", v(1, 1))]);
        let mut copy = log(v(0, 0), &[("a", v(1, 1))]);
        let mut missing = Missing::default();
        let next = log(v(0, 0), &[("a", v(1, 1)), ("a", v(1, 2))]);
        adopt(&mut copy, &mut missing, &next, &everything());
        assert_eq!(missing.len(), 1);
        let undone = adopt(&mut copy, &mut missing, &auth, &everything()).unwrap();
        assert!(missing.is_empty() && undone.objects.is_empty());
        // And with the older version missing too.
        let mut copy = log(v(0, 0), &[]);
        adopt(&mut copy, &mut missing, &next, &everything());
        let undone = adopt(&mut copy, &mut missing, &auth, &everything()).unwrap();
        assert_eq!(needs(&missing), [(object("a"), v(1, 1), NOTHING)]);
        assert!(undone.objects.is_empty());
    }

    #[test]
    fn what_everybody_had_cannot_be_undone_but_fetched() {
        let auth = log(v(0, 0), &[("a", v(1, 1))]);
        let mut copy = log(v(0, 0), &[("a", v(1, 1)), ("a", v(1, 2)), ("b", v(1, 3))]);
        copy.advance_horizon(v(1, 3));
        let mut missing = Missing::default();
        let undone = adopt(&mut copy, &mut missing, &auth, &everything()).unwrap();
        assert_eq!(needs(&missing), [(object("a"), v(1, 1), NOTHING)]);
        assert_eq!(undone.objects, [object("b")], "what was made then goes whole");
    }

    #[test]
    fn entries_without_an_epoch_undo_nothing_else() {
        let auth = log(v(0, 0), &[("a", v(1, 1)), ("b", v(2, 2))]);
        let with = |ops: [(i32, bool); 2]| {
            let mut copy = log(v(0, 0), &[("a", v(1, 1))]);
            for (n, (op, has_epoch)) in (2..).zip(ops) {
                let mut entry = crate::log::tests::entry("a", v(1, n), v(1, n - 1));
                entry.op = op;
                if !has_epoch {
                    entry.mod_desc = Default::default();
                }
                copy.append(entry);
            }
            let undone = adopt(&mut copy, &mut Missing::default(), &auth, &everything());
            undone.unwrap()
        };
        let (error, modify, lost) = (log_op::ERROR, log_op::MODIFY, log_op::LOST_REVERT);
        for (ops, above, objects) in [
            ([(error, false), (error, false)], 10, 0),
            ([(error, false), (modify, true)], 29, 1),
            ([(modify, true), (error, false)], 19, 1),
            ([(lost, false), (modify, true)], 10, 1),
        ] {
            let undone = with(ops);
            assert_eq!((undone.above_epoch, undone.objects.len()), (above, objects), "{ops:?}");
        }
    }

    #[test]
    fn logs_that_do_not_connect() {
        let auth = log(v(1, 5), &[("a", v(1, 6))]);
        let copy = log(v(0, 0), &[("a", v(1, 4))]);
        assert_eq!(common(&auth, &copy), None);
        assert_eq!(common(&copy, &auth), None);
        assert_eq!(common(&auth, &log(v(0, 0), &[("b", v(1, 5))])), Some(v(1, 5)));
    }

    #[test]
    fn an_older_tail_is_taken_over() {
        let auth = log(v(0, 0), &[("a", v(1, 1)), ("b", v(1, 2)), ("c", v(1, 3))]);
        let mut copy = log(v(1, 2), &[("c", v(1, 3))]);
        adopt(&mut copy, &mut Missing::default(), &auth, &everything()).unwrap();
        assert_eq!((copy.tail(), copy.len()), (v(0, 0), 3));
        let mut empty = log(v(1, 3), &[]);
        adopt(&mut empty, &mut Missing::default(), &auth, &everything()).unwrap();
        assert_eq!((empty.tail(), empty.len(), empty.head()), (v(0, 0), 3, v(1, 3)));
    }

    #[test]
    fn objects_beyond_the_backfill_are_nobodys_business() {
        let auth = log(v(0, 0), &[("a", v(1, 1)), ("b", v(1, 2))]);
        let mut copy = log(v(0, 0), &[]);
        let mut missing = Missing::default();
        let reached = object("a").min(object("b"));
        adopt(&mut copy, &mut missing, &auth, &reached).unwrap();
        assert_eq!(needs(&missing).len(), 1);
    }
}
