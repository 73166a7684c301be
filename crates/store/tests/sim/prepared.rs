//! Prepared transactions in the random workload: what may have become of them when power was lost.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use spirula_store::{Commit, Store};
use spirula_vos::{ContainerId, StageError, Tx, TxId, TxState};
use spirula_xstream::{Class, spawn};

use crate::ops::{self, Op, random_op};
use crate::workload::{CONTAINERS, Shared};

/// What the submitter knows of a transaction that it prepared.
struct Known {
    /// Its epoch.
    number: u64,
    ops: Vec<(ContainerId, Op)>,
    prepared: bool,
    end: Option<End>,
}

/// The end that was asked for.
struct End {
    /// Of the transaction that ends it.
    number: u64,
    state: TxState,
    acknowledged: bool,
}

#[derive(Default)]
pub(crate) struct Transactions {
    known: BTreeMap<TxId, Known>,
    /// How many were found prepared after a loss of power.
    pub(crate) survived: u64,
}

/// First and last number of the transactions that a container may be at.
pub(crate) type Reached = BTreeMap<ContainerId, (u64, u64)>;

async fn submit(store: &Store, tx: &Tx) -> Result<Commit, StageError> {
    loop {
        match store.submit(tx) {
            Err(StageError::Missing(pages)) => store.load(pages).await.unwrap(),
            result => return result,
        }
    }
}

/// Prepares a transaction over one or two containers.
pub(crate) async fn prepare_one(store: &Store, ledger: &Shared, rng: &mut ChaCha8Rng) {
    let number = {
        let mut ledger = ledger.borrow_mut();
        ledger.next += 1;
        ledger.next
    };
    let mut tx = Tx::new(number);
    let id = TxId(u128::from(number).to_be_bytes());
    tx.prepare(id);
    tx.set_horizon(number.saturating_sub(rng.random_range(0..20)));
    let mut ops = Vec::new();
    for _ in 0..rng.random_range(1..3) {
        let cid = ContainerId([rng.random_range(0..CONTAINERS); 16]);
        let state = ledger.borrow().histories[&cid].states.last().unwrap().1.clone();
        for _ in 0..rng.random_range(1..4) {
            let op = random_op(&state, rng);
            if !matches!(op, Op::CreateContainer | Op::DestroyContainer) {
                ops::add(&mut tx, cid, &op);
                ops.push((cid, op));
            }
        }
    }
    let commit = match submit(store, &tx).await {
        Ok(commit) => commit,
        Err(StageError::NoSpace | StageError::InProgress { .. } | StageError::NotPreparable) => {
            ledger.borrow_mut().refused += 1;
            return;
        }
        Err(e) => panic!("prepare: {e}"),
    };
    let known = Known { number, ops, prepared: false, end: None };
    ledger.borrow_mut().prepared.known.insert(id, known);
    let ledger = ledger.clone();
    spawn(Class::Client, async move {
        commit.await.unwrap();
        if let Some(known) = ledger.borrow_mut().prepared.known.get_mut(&id) {
            known.prepared = true;
        }
    });
}

/// Commits or aborts a transaction, whether its preparation is durable yet or not.
pub(crate) async fn end_one(store: &Store, ledger: &Shared, rng: &mut ChaCha8Rng) {
    let (id, number) = {
        let mut ledger = ledger.borrow_mut();
        let open = ledger.prepared.known.iter().filter(|(_, k)| k.end.is_none());
        let open: Vec<TxId> = open.map(|(id, _)| *id).collect();
        if open.is_empty() {
            return;
        }
        ledger.next += 1;
        (open[rng.random_range(0..open.len())], ledger.next)
    };
    let commits = rng.random_bool(0.7);
    let mut tx = Tx::new(number);
    match commits {
        true => tx.commit_prepared(id),
        false => tx.abort_prepared(id),
    }
    // However full the store is.
    let commit = submit(store, &tx).await.unwrap();
    let mut cids: Vec<ContainerId> = Vec::new();
    {
        let mut guard = ledger.borrow_mut();
        let ledger = &mut *guard;
        let known = ledger.prepared.known.get_mut(&id).unwrap();
        let state = if commits { TxState::Committed(known.number) } else { TxState::Aborted };
        known.end = Some(End { number, state, acknowledged: false });
        if commits {
            cids.extend(known.ops.iter().map(|(cid, _)| *cid));
            cids.sort_unstable();
            cids.dedup();
        }
        for cid in &cids {
            let states = &mut ledger.histories.get_mut(cid).unwrap().states;
            let mut state = states.last().unwrap().1.clone();
            let own = known.ops.iter().filter(|(c, _)| c == cid);
            own.for_each(|(_, op)| ops::apply(&mut state, op));
            states.push((number, state));
        }
        if let [a, b] = cids[..] {
            ledger.pairs.push((number, a, b));
        }
    }
    let ledger = ledger.clone();
    spawn(Class::Client, async move {
        commit.await.unwrap();
        let mut ledger = ledger.borrow_mut();
        if let Some(end) = ledger.prepared.known.get_mut(&id).and_then(|k| k.end.as_mut()) {
            end.acknowledged = true;
        }
        for cid in cids {
            let history = ledger.histories.get_mut(&cid).unwrap();
            history.acknowledged = history.acknowledged.max(number);
        }
    });
}

/// Compares the tables with what is known, and with what is in the containers.
pub(crate) async fn verify(
    store: &Store,
    ledger: &Shared,
    reached: &Reached,
) -> Result<(), String> {
    let all = std::mem::take(&mut ledger.borrow_mut().prepared.known);
    let listed = store.try_read(|vos| Ok(vos.prepared())).map_err(|e| e.to_string())?;
    let mut found = BTreeMap::new();
    for (id, known) in all {
        let state = store.read(|vos| vos.tx_state(id)).await.map_err(|e| e.to_string())?;
        may_be(&known, state, reached).map_err(|e| format!("{id:?} is {state}: {e}"))?;
        if state == TxState::Prepared {
            found.insert(id, Known { prepared: true, end: None, ..known });
        }
    }
    let ids: Vec<TxId> = listed.into_iter().map(|p| p.id).collect();
    if ids != found.keys().copied().collect::<Vec<_>>() {
        return Err(format!("{ids:?} are prepared, not {:?}", found.keys()));
    }
    let mut ledger = ledger.borrow_mut();
    ledger.prepared.survived += found.len() as u64;
    ledger.prepared.known = found;
    Ok(())
}

/// Whether a transaction may be in this state.
fn may_be(known: &Known, state: TxState, reached: &Reached) -> Result<(), String> {
    let end = known.end.as_ref();
    match (state, end) {
        (TxState::Unknown, _) if known.prepared || end.is_some_and(|e| e.acknowledged) => {
            return Err("it was acknowledged".into());
        }
        (TxState::Prepared, Some(end)) if end.acknowledged => {
            return Err(format!("it was {}", end.state));
        }
        (TxState::Unknown | TxState::Prepared, _) => {}
        (state, Some(end)) if end.state == state => {}
        _ => return Err("nobody ended it so".into()),
    }
    let Some(End { number, state: TxState::Committed(_), .. }) = end else {
        return Ok(());
    };
    let committed = matches!(state, TxState::Committed(_));
    for (cid, _) in &known.ops {
        let (first, last) = reached[cid];
        if (committed && last < *number) || (!committed && first >= *number) {
            return Err(format!("{cid:?} is at {first} to {last}, not {number}"));
        }
    }
    Ok(())
}
