//! What the prepared transactions of a store touch, in memory, so that nobody gets in their way.
//!
//! A prepared transaction must be able to commit whatever happens before it does. So nothing is staged
//! that overlaps what it writes, or changes at an earlier epoch what its conditions looked at, or moves
//! the horizon of an object it writes above its epoch ([`Active::check`]); and nobody is told at or above
//! its epoch what is in a place that it writes ([`Active::check_read`]).
//! Invariants: rebuilt from the table of active transactions at open; bounded, for a transaction that
//! touches much counts as touching whole objects or containers; without prepared transactions it costs a
//! comparison.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::query::Keys;
use crate::timestamp::{Level, Path};
use crate::tx::{Target, Tx, TxOp};
use crate::types::{ContainerId, ObjectKey, StageError, TxId};

/// Places that one transaction is told apart by.
const TOUCHES_MAX: usize = 64;
/// Places of all prepared transactions.
const ALL_TOUCHES_MAX: usize = 1 << 17;
/// So many bytes of object keys count as one.
const KEY_BYTES_PER_TOUCH: usize = 64;

/// How an operation touches a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Looks at it, at this epoch.
    Read(u64),
    /// Gives it another content.
    Write,
    /// Must have it alone, though nobody who reads at the epoch notices.
    Hold,
    /// Takes away old versions, which a prepared transaction might retain.
    Sweep,
}

/// A place in the store, with all below it, and what is done there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Touch {
    pub(crate) path: Path,
    pub(crate) how: Use,
}

/// A prepared transaction.
#[derive(Clone, Debug)]
pub(crate) struct ActiveTx {
    pub(crate) epoch: u64,
    pub(crate) horizon: u64,
    pub(crate) containers: Vec<ContainerId>,
    /// Pages kept back for it.
    pub(crate) pages: u64,
    touches: Vec<Touch>,
    /// What it writes, object by object; `None` if it counts as touching whole containers.
    objects: Option<BTreeSet<(ContainerId, ObjectKey)>>,
}

/// A touch as it is found by the fingerprint of its place, or of one above.
#[derive(Clone, Copy)]
struct Mark {
    id: TxId,
    epoch: u64,
    horizon: u64,
    reads: bool,
}

/// See the module text.
#[derive(Default)]
pub(crate) struct Active {
    txs: BTreeMap<TxId, ActiveTx>,
    exact: HashMap<u64, Vec<Mark>>,
    /// By the places above.
    below: HashMap<u64, Vec<Mark>>,
    touches: usize,
    /// Pages kept back for all of them.
    pub(crate) pages: u64,
}

impl ActiveTx {
    pub(crate) fn new(tx: &Tx, pages: u64) -> ActiveTx {
        let mut containers: Vec<ContainerId> = tx.objects.iter().map(|o| o.0).collect();
        containers.sort_unstable();
        containers.dedup();
        let touches = coarsened(touches(tx));
        let told_apart = touches.iter().all(|t| t.path.level() > Level::Container);
        let written = tx.ops.iter().filter_map(|op| changed_object(tx, op)).cloned();
        let objects = told_apart.then(|| written.collect());
        ActiveTx { epoch: tx.epoch, horizon: tx.horizon(), containers, pages, touches, objects }
    }

    /// How much of memory it counts for, in touches.
    fn weight(&self) -> usize {
        let keys: usize = self.objects.iter().flatten().map(|(_, oid)| oid.0.len()).sum();
        self.touches.len() + keys / KEY_BYTES_PER_TOUCH
    }

    /// Whether it writes one of these objects.
    fn writes(&self, cid: ContainerId, keys: &Keys) -> bool {
        match &self.objects {
            None => self.containers.contains(&cid),
            Some(objects) => objects.iter().any(|(c, oid)| *c == cid && keys.has(&oid.0)),
        }
    }
}

impl Active {
    pub(crate) fn is_empty(&self) -> bool {
        self.txs.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.txs.len()
    }

    pub(crate) fn get(&self, id: TxId) -> Option<&ActiveTx> {
        self.txs.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TxId, &ActiveTx)> {
        self.txs.iter().map(|(id, tx)| (*id, tx))
    }

    /// The last one, by id.
    pub(crate) fn last(&self) -> Option<TxId> {
        self.txs.last_key_value().map(|(id, _)| *id)
    }

    /// Whether another one can be told apart.
    pub(crate) fn has_room(&self, tx: &ActiveTx) -> bool {
        self.touches + tx.weight() <= ALL_TOUCHES_MAX
    }

    pub(crate) fn insert(&mut self, id: TxId, tx: ActiveTx) {
        self.remove(id);
        for touch in &tx.touches {
            let reads = matches!(touch.how, Use::Read(_));
            let mark = Mark { id, epoch: tx.epoch, horizon: tx.horizon, reads };
            for (level, fingerprint) in touch.path.levels() {
                let end = level == touch.path.level();
                let marks = if end { &mut self.exact } else { &mut self.below };
                marks.entry(fingerprint).or_default().push(mark);
            }
        }
        self.touches += tx.weight();
        self.pages += tx.pages;
        self.txs.insert(id, tx);
    }

    pub(crate) fn remove(&mut self, id: TxId) {
        let Some(tx) = self.txs.remove(&id) else {
            return;
        };
        self.touches -= tx.weight();
        self.pages -= tx.pages;
        for path in tx.touches.iter().map(|t| t.path) {
            for (level, fingerprint) in path.levels() {
                let end = level == path.level();
                let marks = if end { &mut self.exact } else { &mut self.below };
                let Some(list) = marks.get_mut(&fingerprint) else {
                    continue;
                };
                list.retain(|m| m.id != id);
                if list.is_empty() {
                    marks.remove(&fingerprint);
                }
            }
        }
    }

    /// Who must be waited for by a reader at `epoch`.
    pub(crate) fn check_read(&self, path: &Path, epoch: u64) -> Option<TxId> {
        self.find(path, |m| !m.reads && m.epoch <= epoch)
    }

    /// Who must be waited for by a reader at `epoch` who lists these objects of a container.
    pub(crate) fn check_list(&self, cid: ContainerId, keys: &Keys, epoch: u64) -> Option<TxId> {
        let found = self.txs.iter().find(|(_, tx)| tx.epoch <= epoch && tx.writes(cid, keys));
        found.map(|(id, _)| *id)
    }

    /// Refuses what must wait for a prepared transaction; those that it ends itself do not count from
    /// there on.
    pub(crate) fn check(&self, tx: &Tx) -> Result<(), StageError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut ended = HashSet::new();
        for op in &tx.ops {
            if let TxOp::CommitPrepared(id) | TxOp::AbortPrepared(id) = op {
                ended.insert(*id);
            }
            let counts = |m: &Mark| !ended.contains(&m.id);
            for Touch { path, how } in touches_of(tx, op) {
                let found = self.find(&path, |m| counts(m) && in_the_way(m, how, tx.epoch));
                found.map_or(Ok(()), |id| Err(StageError::InProgress { id }))?;
            }
            if let Some((cid, oid)) = changed_object(tx, op) {
                let early = |m: &Mark| {
                    m.epoch < tx.horizon() || (tx.prepare.is_some() && tx.epoch < m.horizon)
                };
                let path = Path::object(*cid, &oid.0);
                let found = self.find(&path, |m| counts(m) && !m.reads && early(m));
                found.map_or(Ok(()), |id| Err(StageError::InProgress { id }))?;
            }
        }
        Ok(())
    }

    /// A touch that overlaps `path` and is wanted.
    fn find(&self, path: &Path, wanted: impl Fn(&Mark) -> bool) -> Option<TxId> {
        let end = path.levels().last().map(|(_, fingerprint)| fingerprint);
        let above = path.levels().filter_map(|(_, fp)| self.exact.get(&fp));
        let below = end.and_then(|fp| self.below.get(&fp));
        above.chain(below).flatten().find(|m| wanted(m)).map(|m| m.id)
    }
}

fn in_the_way(mark: &Mark, how: Use, epoch: u64) -> bool {
    match how {
        Use::Read(at) => !mark.reads && mark.epoch <= at,
        Use::Write | Use::Hold => !mark.reads || epoch <= mark.epoch,
        Use::Sweep => !mark.reads,
    }
}

/// Everything a transaction touches.
pub(crate) fn touches(tx: &Tx) -> Vec<Touch> {
    tx.ops.iter().flat_map(|op| touches_of(tx, op)).collect()
}

/// The object whose record an operation changes.
fn changed_object<'t>(tx: &'t Tx, op: &TxOp) -> Option<&'t (ContainerId, ObjectKey)> {
    match op {
        TxOp::Require { .. } => None,
        op => tx.objects.get(op.object()? as usize),
    }
}

/// What an operation touches.
pub(crate) fn touches_of(tx: &Tx, op: &TxOp) -> Vec<Touch> {
    let container = |cid| Path::container(cid);
    let named = op.object().and_then(|object| tx.objects.get(object as usize));
    let touch = |path, how| vec![Touch { path, how }];
    let Some((cid, oid)) = named else {
        return match op {
            TxOp::DestroyContainer(cid) => touch(container(*cid), Use::Write),
            // Objects would be in another container than their transaction says.
            TxOp::SplitContainer { cid, .. } => touch(container(*cid), Use::Hold),
            TxOp::MergeContainer { cid, upper } => {
                let held = [cid, upper].into_iter();
                held.map(|cid| Touch { path: container(*cid), how: Use::Hold }).collect()
            }
            _ => Vec::new(),
        };
    };
    let object = Path::object(*cid, &oid.0);
    let akey = |dkey: &[u8], akey: &[u8]| Path::akey(*cid, &oid.0, dkey, akey);
    match op {
        // The object comes into being, whatever is in it.
        TxOp::CreateObject { .. } => touch(akey(&[], &[]), Use::Write),
        TxOp::Update { dkey, akey: a, .. }
        | TxOp::Write { dkey, akey: a, .. }
        | TxOp::Truncate { dkey, akey: a, .. }
        | TxOp::PunchRange { dkey, akey: a, .. }
        | TxOp::PunchAkey { dkey, akey: a, .. } => touch(akey(dkey, a), Use::Write),
        TxOp::PunchAkeys { dkey, .. } | TxOp::PunchDkey { dkey, .. } => {
            touch(Path::dkey(*cid, &oid.0, dkey), Use::Write)
        }
        TxOp::PunchObject { .. } => touch(object, Use::Write),
        TxOp::Retain { .. } | TxOp::Discard { .. } | TxOp::Import { .. } => {
            touch(object, Use::Hold)
        }
        TxOp::Aggregate { .. } => touch(object, Use::Sweep),
        // A commit meets the pieces that its preparation met.
        TxOp::Merge { merge, .. } => {
            let pieces = Touch { path: akey(&merge.dkey, &merge.akey), how: Use::Hold };
            vec![pieces, Touch { path: object, how: Use::Sweep }]
        }
        TxOp::Clone { clone, .. } => {
            let mut out = touch(akey(&clone.to.0, &clone.to.1), Use::Write);
            if let Some((cid, oid)) = tx.objects.get(clone.source as usize) {
                let path = Path::akey(*cid, &oid.0, &clone.from.0, &clone.from.1);
                out.push(Touch { path, how: Use::Read(clone.epoch.min(tx.epoch)) });
            }
            out
        }
        TxOp::Require { target, .. } => {
            let path = match target {
                Target::Object => object,
                Target::Dkey(dkey) => Path::dkey(*cid, &oid.0, dkey),
                Target::Akey(dkey, a) => akey(dkey, a),
            };
            touch(path, Use::Read(tx.epoch))
        }
        _ => Vec::new(),
    }
}

/// As many touches as one transaction may have: of whole objects, or of containers, if need be.
fn coarsened(mut touches: Vec<Touch>) -> Vec<Touch> {
    for level in [Level::Akey, Level::Object, Level::Container] {
        for touch in &mut touches {
            touch.path = touch.path.upto(level);
        }
        // Reads of one transaction have one epoch.
        let mut seen = HashSet::new();
        touches.retain(|t| seen.insert((t.path, matches!(t.how, Use::Read(_)))));
        if touches.len() <= TOUCHES_MAX {
            break;
        }
    }
    touches
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tx::Must;

    const CID: ContainerId = ContainerId([1; 16]);

    fn id(n: u8) -> TxId {
        TxId([n; 16])
    }

    fn oid(n: u64) -> ObjectKey {
        ObjectKey::copy_from(&n.to_be_bytes())
    }

    fn writes(epoch: u64, akeys: std::ops::Range<u64>, objects: std::ops::Range<u64>) -> Tx {
        let mut tx = Tx::new(epoch);
        tx.set_horizon(0);
        for object in objects {
            for akey in akeys.clone() {
                tx.update(CID, &oid(object), b"d", &akey.to_be_bytes(), Bytes::new());
            }
        }
        tx
    }

    fn active(n: u8, tx: &Tx) -> Active {
        let mut active = Active::default();
        active.insert(id(n), ActiveTx::new(tx, 5));
        active
    }

    #[test]
    fn what_does_not_overlap_goes_on() {
        let active = active(1, &writes(10, 0..2, 0..1));
        let refused = Err(StageError::InProgress { id: id(1) });
        assert_eq!(active.check(&writes(5, 1..2, 0..1)), refused, "in any order of epochs");
        assert_eq!(active.check(&writes(15, 1..2, 0..1)), refused);
        assert_eq!(active.check(&writes(15, 2..3, 0..1)), Ok(()));
        assert_eq!(active.check(&writes(15, 0..3, 1..2)), Ok(()));
        let mut tx = Tx::new(15);
        tx.update(CID, &oid(0), b"other", b"", Bytes::new());
        assert_eq!(active.check(&tx), refused, "its horizon is above the prepared epoch");
        tx.set_horizon(10);
        assert_eq!(active.check(&tx), Ok(()));
        tx.punch_object(CID, &oid(0));
        assert_eq!(active.check(&tx), refused);
    }

    #[test]
    fn conditions_are_held_against_earlier_writes() {
        let mut tx = Tx::new(10);
        tx.require(CID, &oid(0), Target::Dkey(b"d"[..].into()), Must::Exist);
        let active = active(1, &tx);
        let refused = Err(StageError::InProgress { id: id(1) });
        assert_eq!(active.check(&writes(9, 0..1, 0..1)), refused);
        assert_eq!(active.check(&writes(11, 0..1, 0..1)), Ok(()));
        assert_eq!(active.check_read(&Path::object(CID, &oid(0).0), 20), None);
        let mut other = Tx::new(20);
        other.require(CID, &oid(0), Target::Object, Must::Exist);
        assert_eq!(active.check(&other), Ok(()));
    }

    #[test]
    fn a_transaction_that_touches_much_holds_more_than_it_needs() {
        let objects = active(1, &writes(10, 0..100, 0..2));
        let refused = Err(StageError::InProgress { id: id(1) });
        assert_eq!(objects.check(&writes(11, 200..201, 1..2)), refused);
        assert_eq!(objects.check(&writes(11, 200..201, 2..3)), Ok(()));
        let all = active(1, &writes(10, 0..1, 0..100));
        assert_eq!(all.check(&writes(11, 0..1, 500..501)), refused);
    }

    #[test]
    fn what_is_removed_leaves_nothing() {
        let mut active = active(1, &writes(10, 0..3, 0..3));
        active.insert(id(2), ActiveTx::new(&writes(11, 3..6, 0..3), 7));
        assert_eq!((active.len(), active.pages), (2, 12));
        active.remove(id(1));
        assert_eq!(active.check_read(&Path::container(CID), 10), None);
        assert_eq!(active.check_read(&Path::container(CID), 11), Some(id(2)));
        active.remove(id(2));
        let left = (active.exact.len(), active.below.len(), active.touches, active.pages);
        assert_eq!(left, (0, 0, 0, 0));
    }

    #[test]
    fn who_ends_a_transaction_may_go_on_at_once() {
        let active = active(1, &writes(10, 0..1, 0..1));
        let mut tx = Tx::new(12);
        tx.commit_prepared(id(1));
        tx.update(CID, &oid(0), b"d", &0u64.to_be_bytes(), Bytes::new());
        assert_eq!(active.check(&tx), Ok(()));
        tx.ops.rotate_left(1);
        assert_eq!(active.check(&tx), Err(StageError::InProgress { id: id(1) }));
    }
}
