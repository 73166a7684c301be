//! Prepared transactions in the model: what they will write, and who must wait for that.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use spirula_vos::{Epoch, Pick, ReadError, StageError, Tx, TxId, TxState, Vos};

use crate::ops::Op;
use crate::versions::{CID, World, oid};

/// What is added when a transaction commits.
#[derive(Default)]
pub(crate) struct Pending {
    /// `None`: it is not prepared.
    pub(crate) id: Option<TxId>,
    epoch: u64,
    pub(crate) horizon: u64,
    pub(crate) ops: Vec<(usize, Epoch, Op)>,
    pub(crate) retained: Vec<(usize, BTreeSet<u64>)>,
    /// Objects with conditions.
    pub(crate) conditions: BTreeSet<usize>,
}

/// All prepared transactions there were.
#[derive(Default)]
pub(crate) struct Ledger {
    active: BTreeMap<TxId, Pending>,
    ended: BTreeMap<TxId, (u64, TxState)>,
    next: u64,
}

/// The dkey and akey that an operation writes; `None`: all of them.
fn place(op: &Op) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    match op {
        Op::CreateContainer | Op::DestroyContainer | Op::PunchObject(_) => None,
        Op::CreateObject(_) => Some((Vec::new(), Some(Vec::new()))),
        Op::Update(_, d, a, _)
        | Op::Write(_, d, a, _, _)
        | Op::Truncate(_, d, a, _)
        | Op::PunchRange(_, d, a, _, _)
        | Op::PunchAkey(_, d, a) => Some((d.clone(), Some(a.clone()))),
        Op::PunchAkeys(_, d, _, _) | Op::PunchDkey(_, d) => Some((d.clone(), None)),
    }
}

impl Pending {
    /// Whether a reader of an akey must wait.
    fn writes(&self, i: usize, dkey: &[u8], akey: &[u8]) -> bool {
        let covers = |op: &Op| match place(op) {
            None => true,
            Some((d, a)) => d == dkey && a.is_none_or(|a| a == akey),
        };
        self.holds(i) || self.ops.iter().any(|(n, _, op)| *n == i && covers(op))
    }

    fn holds(&self, i: usize) -> bool {
        self.retained.iter().any(|(n, _)| *n == i)
    }

    fn touches(&self, i: usize) -> bool {
        self.holds(i) || self.ops.iter().any(|(n, _, _)| *n == i)
    }
}

impl Ledger {
    /// Decides whether a transaction is to be prepared.
    pub(crate) fn perhaps(&mut self, rng: &mut ChaCha8Rng, tx: &mut Tx) -> Pending {
        let prepare = self.active.len() < 6 && rng.random_bool(0.25);
        let id = prepare.then(|| {
            self.next += 1;
            let aborted = self
                .ended
                .iter()
                .find(|(_, (epoch, state))| *state == TxState::Aborted && *epoch < tx.epoch);
            // It may start again.
            let again = aborted.map(|(id, _)| *id).filter(|_| rng.random_bool(0.3));
            again.unwrap_or(TxId(u128::from(self.next).wrapping_mul(0x9e37_79b9).to_le_bytes()))
        });
        if let Some(id) = id {
            tx.prepare(id);
        }
        Pending { id, epoch: tx.epoch, ..Pending::default() }
    }

    pub(crate) fn add(&mut self, pending: Pending) {
        let id = pending.id.unwrap();
        self.ended.remove(&id);
        assert!(self.active.insert(id, pending).is_none());
    }

    /// A transaction on these objects had to wait.
    pub(crate) fn justify(&self, id: TxId, touched: &BTreeSet<usize>) {
        let pending = &self.active[&id];
        let shared = |i: &usize| pending.touches(*i) || pending.conditions.contains(i);
        assert!(touched.iter().any(shared), "{touched:?} did not have to wait");
    }

    /// Whether a read must wait, by what the transactions write.
    fn waits(&self, hlc: u64, writes: impl Fn(&Pending) -> bool) -> bool {
        self.active.values().any(|p| p.epoch <= hlc && writes(p))
    }
}

impl World {
    /// Commits or aborts one or two prepared transactions.
    pub(crate) fn end_one(&mut self) {
        let ids: Vec<TxId> = self.prepared.active.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let first = self.rng.random_range(0..ids.len());
        let count = self.rng.random_range(1..3);
        let mut tx = Tx::new(self.now);
        let mut ends = Vec::new();
        for id in ids[first..].iter().take(count) {
            let commit = self.rng.random_bool(0.7);
            ends.push((*id, commit));
            match commit {
                true => tx.commit_prepared(*id),
                false => tx.abort_prepared(*id),
            }
        }
        // It cannot be refused, whatever has happened since.
        self.rig.submit(&tx).unwrap();
        for (id, commit) in ends {
            self.ended(id, commit);
        }
    }

    fn ended(&mut self, id: TxId, commit: bool) {
        let Pending { epoch, horizon, ops, retained, .. } =
            self.prepared.active.remove(&id).unwrap();
        let state = if commit { TxState::Committed(epoch) } else { TxState::Aborted };
        self.prepared.ended.insert(id, (epoch, state));
        if !commit {
            return;
        }
        for (i, epoch, op) in ops {
            self.objects[i].add(epoch, op);
            self.objects[i].horizon = self.objects[i].horizon.max(horizon);
        }
        for (i, list) in retained {
            self.objects[i].retained = list;
            self.objects[i].horizon = self.objects[i].horizon.max(horizon);
        }
    }

    /// Ends all that is prepared, and forgets that.
    pub(crate) fn end_all(&mut self) {
        while !self.prepared.active.is_empty() {
            self.end_one();
        }
        self.verify_prepared();
        self.rig.forget_ended();
        self.prepared.ended.clear();
    }

    /// Who is known, what has become of the others, and which reads must wait.
    pub(crate) fn verify_prepared(&mut self) {
        let known: Vec<TxId> = self.rig.vos.prepared().iter().map(|p| p.id).collect();
        assert_eq!(known, self.prepared.active.keys().copied().collect::<Vec<_>>());
        for (id, (_, state)) in &self.prepared.ended {
            assert_eq!(self.rig.read(|vos| vos.tx_state(*id)), *state);
            let mut tx = Tx::new(self.now);
            tx.prepare(*id);
            tx.create_object(CID, &oid(0));
            if let TxState::Committed(_) = state {
                let refused = Err(StageError::WrongState { id: *id, state: *state });
                assert_eq!(self.rig.submit(&tx), refused);
            }
        }
        assert_eq!(self.rig.read(|vos| vos.tx_state(TxId([0; 16]))), TxState::Unknown);
        let epochs: Vec<u64> = self.prepared.active.values().map(|p| p.epoch).collect();
        for hlc in epochs.iter().flat_map(|e| [e.saturating_sub(1), *e]).chain([u64::MAX]) {
            for i in 0..self.objects.len() {
                if hlc >= self.objects[i].horizon {
                    self.verify_waiting(i, hlc);
                }
            }
        }
    }

    fn verify_waiting(&mut self, i: usize, hlc: u64) {
        let ledger = &self.prepared;
        let object = ledger.waits(hlc, |p| p.touches(i));
        let exists = |vos: &Vos| vos.at(hlc).object_exists(CID, &oid(i));
        assert_eq!(waits(&mut self.rig, exists), object, "object {i} at {hlc}");
        let any = |vos: &Vos| {
            vos.at(hlc).query_key(CID, &oid(i), &Pick::Min, &Pick::Min, None).map(|_| true)
        };
        assert_eq!(waits(&mut self.rig, any), object, "keys of {i} at {hlc}");
        for (dkey, akey) in [("array", ""), ("omap", "key07"), ("omap", "key20"), ("attr", "_")] {
            let (dkey, akey) = (dkey.as_bytes(), akey.as_bytes());
            let expected = ledger.waits(hlc, |p| p.writes(i, dkey, akey));
            let fetch = |vos: &Vos| vos.at(hlc).fetch(CID, &oid(i), dkey, akey).map(|_| true);
            assert_eq!(waits(&mut self.rig, fetch), expected, "akey of {i} at {hlc}");
            let size = |vos: &Vos| vos.at(hlc).array_size(CID, &oid(i), dkey, akey).map(|_| true);
            assert_eq!(waits(&mut self.rig, size), expected, "size of {i} at {hlc}");
        }
    }
}

/// Whether a read is told to wait.
fn waits(rig: &mut crate::rig::Rig, read: impl Fn(&Vos) -> Result<bool, ReadError>) -> bool {
    rig.read(|vos| match read(vos) {
        Ok(_) => Ok(false),
        Err(ReadError::InProgress { .. }) => Ok(true),
        Err(e) => Err(e),
    })
}
