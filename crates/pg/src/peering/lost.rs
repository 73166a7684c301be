//! Objects that no copy has any more: an operator gives them up (`mark_unfound_lost`).

use spirula_wire::types::{HObject, PgLogEntry, log_op};

use super::Peering;
use crate::missing::MissingObject;

impl Peering {
    /// What is missing of an object that may be given up, if no copy has it. The driver writes an entry of
    /// LOST_DELETE, with which the object is removed everywhere, or of LOST_REVERT: then it is as it is here,
    /// and members get it by recovery.
    pub fn lost(&self, object: &HObject) -> Option<MissingObject> {
        let item = self.missing.get(object).copied()?;
        (self.is_peered() && self.sources(object, item.need).is_empty()).then_some(item)
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
    use crate::peering::{Config, Peer, SendTo, State};

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
        for (op, sends_whole) in [(log_op::LOST_DELETE, true), (log_op::LOST_REVERT, false)] {
            let mut pg = pg();
            let mut lost = pg.unfound();
            lost.sort_by(|a, b| a.oid.cmp(&b.oid));
            assert_eq!(lost, [object("a"), object("b")]);
            for object in lost {
                let item = pg.lost(&object).unwrap();
                let version = pg.next_version();
                let prior_version = item.need;
                let entry = PgLogEntry { op, object, version, prior_version, ..Default::default() };
                let sent = if sends_whole { SendTo::Whole(1) } else { SendTo::LogOnly(1) };
                assert_eq!(pg.append(entry.clone()), [sent]);
                assert_eq!(pg.lost(&entry.object), None);
            }
            assert!(pg.missing.is_empty() && pg.unfound().is_empty());
            assert_eq!(pg.info.last_complete, pg.info.last_update);
            let needs = pg.missing_of(1).map(|m| m.in_order().map(|(_, v)| v).collect::<Vec<_>>());
            let copied = if sends_whole { vec![] } else { vec![v(1, 4), v(1, 5)] };
            assert_eq!(needs, Some(copied), "what went back is copied");
        }
    }
}
