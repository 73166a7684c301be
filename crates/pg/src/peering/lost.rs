//! Objects that no copy has any more: an operator gives them up (`mark_unfound_lost`).

use spirula_wire::types::{EVersion, PgLogEntry, log_op};

use super::Peering;

impl Peering {
    /// The entries that give up all unfound objects, for the driver to write as it writes others:
    /// [`Peering::append`] here, [`Peering::apply`] at the members. A deleted object is removed in the
    /// transaction; one that reverts is as it is here (`prior_version` names what was lost, `reverting_to`
    /// what it is), and members get it by recovery.
    pub fn give_up_unfound(&self, revert: bool) -> Vec<PgLogEntry> {
        let mut version = self.next_version();
        let mut entries = Vec::new();
        for object in self.unfound() {
            let Some(item) = self.missing.get(&object).copied() else {
                continue;
            };
            // What never was here has nothing to go back to.
            let reverts = revert && item.have != EVersion::default();
            entries.push(PgLogEntry {
                op: if reverts { log_op::LOST_REVERT } else { log_op::LOST_DELETE },
                object,
                version,
                prior_version: item.need,
                reverting_to: if reverts { item.have } else { EVersion::default() },
                ..PgLogEntry::default()
            });
            version.version += 1;
        }
        entries
    }

    /// An entry that gives an object up settles what is missing.
    pub(super) fn settle_lost(&mut self, entry: &PgLogEntry) {
        match entry.op {
            log_op::LOST_DELETE => {
                self.missing.remove(&entry.object);
            }
            log_op::LOST_REVERT if self.is_primary() => {
                self.missing.remove(&entry.object);
            }
            log_op::LOST_REVERT => self.missing.add_event(entry),
            _ => return,
        }
        for peer in self.peers.values_mut() {
            let Some(missing) = &mut peer.missing else {
                continue;
            };
            if entry.op == log_op::LOST_DELETE {
                missing.remove(&entry.object);
            } else if entry.object <= peer.info.last_backfill {
                missing.add_event(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use spirula_maps::OsdMap;
    use spirula_wire::types::{PgId, SpgId};

    use super::*;
    use crate::log::tests::{entry, object, v};
    use crate::missing::Missing;
    use crate::peering::{Config, Peer, State};

    /// A primary without "a" (which it has in an older version) and "b" (which it never had), a member
    /// that has the same of "a".
    fn pg() -> Peering {
        let spgid = SpgId::whole(PgId::new(1, 0));
        let mut pg = Peering::create(0, spgid, Arc::new(OsdMap::default()), Config::default());
        pg.append(entry("a", v(1, 1), v(0, 0)));
        for e in [entry("a", v(1, 2), v(1, 1)), entry("b", v(1, 3), v(0, 0))] {
            pg.append(e.clone());
            pg.missing.add_event(&e);
        }
        pg.state = State::Active;
        pg.members = BTreeSet::from([1]);
        let mut peer = Peer { info: pg.info.clone(), missing: Some(pg.missing.clone()) };
        peer.info.last_update = v(1, 3);
        pg.peers.insert(1, peer);
        pg
    }

    #[test]
    fn what_is_lost_is_removed_or_goes_back() {
        for (revert, ops) in [
            (false, [log_op::LOST_DELETE, log_op::LOST_DELETE]),
            (true, [log_op::LOST_REVERT, log_op::LOST_DELETE]),
        ] {
            let mut pg = pg();
            let mut lost = pg.unfound();
            lost.sort_by(|a, b| a.oid.cmp(&b.oid));
            assert_eq!(lost, [object("a"), object("b")]);
            let mut entries = pg.give_up_unfound(revert);
            let versions: Vec<u64> = entries.iter().map(|e| e.version.version).collect();
            assert_eq!(versions, [4, 5]);
            entries.iter().for_each(|e| {
                pg.append(e.clone());
            });
            entries.sort_by(|a, b| a.object.oid.cmp(&b.object.oid));
            assert_eq!([entries[0].op, entries[1].op], ops);
            assert!(pg.missing.is_empty() && pg.unfound().is_empty());
            assert_eq!(pg.info.last_complete, pg.info.last_update);
            let peer = pg.missing_of(1).map(Missing::len);
            assert_eq!(peer, Some(usize::from(revert)), "what went back is copied");
        }
    }
}
