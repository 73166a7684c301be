//! Backoffs: clients are told to keep their requests to a PG that cannot serve them yet.
//!
//! BLOCK goes out with the first request that comes too early. From then on the client's requests to
//! the PG are dropped, until both UNBLOCK has gone out and the acknowledgement of BLOCK has come in:
//! the client repeats on UNBLOCK everything that has no answer, in its order.
//!
//! An interval that ends voids the requests in flight. Clients repeat those by themselves only if the
//! PG's primary is another one; where it stays, BLOCK at the end of the interval ([`hold`]) has them do
//! it, or BLOCK and UNBLOCK if a request is dropped when the next interval serves already ([`repeat`]).
//!
//! Invariant: no request that was sent before the client knew of the backoff is served after one
//! that was dropped.

use std::collections::BTreeMap;
use std::rc::Rc;

use spirula_wire::Message;
use spirula_wire::features::RADOS_BACKOFF;
use spirula_wire::msg::osd::{OsdBackoff, backoff_op};
use spirula_wire::types::{HObject, SpgId};

use crate::object::pg_bounds;
use crate::pg::Pg;
use crate::session::Session;

/// The backoffs of one session, at most one for each PG.
#[derive(Debug, Default)]
pub struct Backoffs {
    last_id: u64,
    by_pg: BTreeMap<SpgId, Backoff>,
}

#[derive(Debug)]
struct Backoff {
    id: u64,
    state: State,
    begin: HObject,
    end: HObject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// BLOCK is on its way.
    New,
    Acknowledged,
    /// UNBLOCK followed before the acknowledgement came.
    Released,
}

impl Backoffs {
    /// Whether requests to the PG are dropped.
    pub fn cover(&self, pgid: SpgId) -> bool {
        !self.by_pg.is_empty() && self.by_pg.contains_key(&pgid)
    }

    /// Begins a backoff for all of a PG; what to tell the client, unless it has been told.
    pub fn block(&mut self, pgid: SpgId, pg_num: u32, map_epoch: u32) -> Option<OsdBackoff> {
        if self.cover(pgid) {
            return None;
        }
        self.last_id += 1;
        let (begin, end) = pg_bounds(pgid.pgid, pg_num);
        let backoff = Backoff { id: self.last_id, state: State::New, begin, end };
        let message = backoff.message(pgid, map_epoch, backoff_op::BLOCK);
        self.by_pg.insert(pgid, backoff);
        Some(message)
    }

    /// The client says that it has seen a BLOCK; anything else it says is ignored.
    pub fn acknowledge(&mut self, pgid: SpgId, id: u64) {
        let Some(backoff) = self.by_pg.get_mut(&pgid).filter(|b| b.id == id) else {
            return;
        };
        match backoff.state {
            State::New => backoff.state = State::Acknowledged,
            State::Acknowledged => {}
            State::Released => {
                self.by_pg.remove(&pgid);
            }
        }
    }

    /// Ends the backoff of a PG; what to tell the client, if it has not been told.
    pub fn release(&mut self, pgid: SpgId, map_epoch: u32) -> Option<OsdBackoff> {
        let backoff = self.by_pg.get_mut(&pgid)?;
        let message = backoff.message(pgid, map_epoch, backoff_op::UNBLOCK);
        match backoff.state {
            State::New => backoff.state = State::Released,
            State::Released => return None,
            State::Acknowledged => {
                self.by_pg.remove(&pgid);
            }
        }
        Some(message)
    }
}

impl Backoff {
    fn message(&self, pgid: SpgId, map_epoch: u32, op: u8) -> OsdBackoff {
        let (begin, end) = (self.begin.clone(), self.end.clone());
        OsdBackoff { pgid, map_epoch, op, id: self.id, begin, end }
    }
}

/// What becomes of a request, as far as backoffs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serve,
    /// It waits here: the client knows nothing of backoffs.
    Wait,
    /// The client sends it again on UNBLOCK.
    Drop,
}

/// Judges a request to `pg`, and tells the client if it comes too early.
pub fn check(session: &Rc<Session>, pg: &Pg, map_epoch: u32) -> Verdict {
    let mut backoffs = session.backoffs.borrow_mut();
    if backoffs.cover(pg.pgid) {
        return Verdict::Drop;
    }
    if pg.active.get() {
        return Verdict::Serve;
    }
    if !session.features.has(RADOS_BACKOFF) {
        return Verdict::Wait;
    }
    block(session, &mut backoffs, pg, map_epoch);
    Verdict::Drop
}

fn block(session: &Rc<Session>, backoffs: &mut Backoffs, pg: &Pg, map_epoch: u32) {
    let pg_num = pg.mapping.borrow().pg_num;
    if let Some(message) = backoffs.block(pg.pgid, pg_num, map_epoch) {
        session.link.send(message.to_raw(0, session.features));
        pg.blocked.borrow_mut().push(Rc::downgrade(session));
    }
}

/// The interval before that of `pg` is over: those whose requests it leaves without an answer repeat them
/// once `pg` is active.
pub fn hold(sessions: &[Rc<Session>], pg: &Pg, map_epoch: u32) {
    for session in sessions.iter().filter(|session| session.features.has(RADOS_BACKOFF)) {
        block(session, &mut session.backoffs.borrow_mut(), pg, map_epoch);
    }
}

/// Has a client send everything again that it has sent to a PG and that has no answer: what was begun in an
/// interval that is over has no effect in this one, and what came after it must not overtake it.
pub fn repeat(session: &Rc<Session>, pg: &Pg, map_epoch: u32) {
    if check(session, pg, map_epoch) != Verdict::Serve || !session.features.has(RADOS_BACKOFF) {
        return;
    }
    let mut backoffs = session.backoffs.borrow_mut();
    let pg_num = pg.mapping.borrow().pg_num;
    let block = backoffs.block(pg.pgid, pg_num, map_epoch);
    let unblock = backoffs.release(pg.pgid, map_epoch);
    for message in block.into_iter().chain(unblock) {
        session.link.send(message.to_raw(0, session.features));
    }
}

/// Ends the backoffs of a PG: it is active, or no longer ours.
pub fn release(pg: &Pg, map_epoch: u32) {
    for session in pg.blocked.take().iter().filter_map(std::rc::Weak::upgrade) {
        if let Some(message) = session.backoffs.borrow_mut().release(pg.pgid, map_epoch) {
            session.link.send(message.to_raw(0, session.features));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spirula_wire::types::{PgId, ShardId, SnapId};

    const PG: SpgId = SpgId { pgid: PgId { pool: 3, seed: 5 }, shard: ShardId::NONE };

    #[test]
    fn a_backoff_lasts_until_it_is_released_and_acknowledged() {
        for acknowledged_first in [true, false] {
            let mut backoffs = Backoffs::default();
            let block = backoffs.block(PG, 8, 7).unwrap();
            assert_eq!((block.op, block.id, block.map_epoch), (backoff_op::BLOCK, 1, 7));
            assert!(backoffs.cover(PG) && backoffs.block(PG, 8, 7).is_none());
            backoffs.acknowledge(PG, 99);
            if acknowledged_first {
                backoffs.acknowledge(PG, 1);
                backoffs.acknowledge(PG, 1);
                assert!(backoffs.cover(PG));
            }
            let unblock = backoffs.release(PG, 8).unwrap();
            let expected = OsdBackoff { op: backoff_op::UNBLOCK, map_epoch: 8, ..block };
            assert_eq!(unblock, expected);
            assert_eq!(backoffs.cover(PG), !acknowledged_first);
            assert!(backoffs.release(PG, 8).is_none(), "told once");
            backoffs.acknowledge(PG, 1);
            assert!(!backoffs.cover(PG));
            assert_eq!(backoffs.block(PG, 8, 9).unwrap().id, 2);
        }
    }

    #[test]
    fn a_backoff_is_for_one_pg_and_all_of_it() {
        let mut backoffs = Backoffs::default();
        let block = backoffs.block(PG, 8, 1).unwrap();
        let other = SpgId::whole(PgId { seed: 4, ..PG.pgid });
        assert!(!backoffs.cover(other) && backoffs.release(other, 1).is_none());
        for hash in [5, 0x1234_5675, 0xffff_fffd, 4, 6, 0x1234_5674] {
            let object = HObject { snap: SnapId::HEAD, ..HObject::at_hash(3, hash) };
            let inside = object >= block.begin && object < block.end;
            assert_eq!(inside, hash & 7 == 5, "{hash:x}");
        }
        let last = backoffs.block(SpgId::whole(PgId { seed: 7, ..PG.pgid }), 8, 1).unwrap();
        assert!(last.end.is_max());
    }
}
