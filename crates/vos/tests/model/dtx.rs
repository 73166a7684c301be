//! Single cases of prepared transactions: who may do what when.

use bytes::Bytes;
use spirula_vos::{
    Anchor, Config, ContainerId, Keys, ObjectKey, Range, ReadError, StageError, Target, Tx, TxId,
    TxState, View,
};

use crate::rig::Rig;

const CID: ContainerId = ContainerId([3; 16]);
const ONE: TxId = TxId([1; 16]);
const TWO: TxId = TxId([2; 16]);

fn oid(n: u64) -> ObjectKey {
    ObjectKey::copy_from(&n.to_be_bytes())
}

fn rig() -> Rig {
    let mut rig = Rig::new(Config::default());
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    rig.submit(&tx).unwrap();
    rig
}

fn update(epoch: u64, object: u64, akey: &[u8]) -> Tx {
    let mut tx = Tx::new(epoch);
    tx.set_horizon(0);
    tx.update(CID, &oid(object), b"d", akey, Bytes::from(epoch.to_string()));
    tx
}

fn prepare(id: TxId, tx: &Tx) -> Tx {
    let mut tx = tx.clone();
    tx.prepare(id);
    tx
}

fn commit(id: TxId) -> Tx {
    let mut tx = Tx::new(1000);
    tx.commit_prepared(id);
    tx
}

fn abort(id: TxId) -> Tx {
    let mut tx = Tx::new(1000);
    tx.abort_prepared(id);
    tx
}

fn state(rig: &mut Rig, id: TxId) -> TxState {
    rig.read(|vos| vos.tx_state(id))
}

fn fetch(rig: &mut Rig, epoch: u64, akey: &[u8]) -> Option<Bytes> {
    rig.read(|vos| vos.at(epoch).committed().fetch(CID, &oid(0), b"d", akey))
}

#[test]
fn a_transaction_ends_once_however_often_it_is_told_to() {
    let mut rig = rig();
    let wrong = |id, state| Err(StageError::WrongState { id, state });
    assert_eq!(rig.submit(&commit(ONE)), wrong(ONE, TxState::Unknown));
    rig.submit(&prepare(ONE, &update(10, 0, b"a"))).unwrap();
    // The same request again.
    let again = rig.submit(&prepare(ONE, &update(10, 0, b"a")));
    assert_eq!(again, wrong(ONE, TxState::Prepared));
    assert_eq!(state(&mut rig, ONE), TxState::Prepared);
    rig.submit(&commit(ONE)).unwrap();
    rig.submit(&commit(ONE)).unwrap();
    assert_eq!(rig.submit(&abort(ONE)), wrong(ONE, TxState::Committed(10)));
    let again = rig.submit(&prepare(ONE, &update(20, 0, b"a")));
    assert_eq!(again, wrong(ONE, TxState::Committed(10)));
    rig.reopen();
    assert_eq!(state(&mut rig, ONE), TxState::Committed(10));
    assert_eq!(fetch(&mut rig, 10, b"a"), Some(Bytes::from("10")));
    assert_eq!(fetch(&mut rig, 9, b"a"), None);

    rig.submit(&prepare(TWO, &update(20, 0, b"a"))).unwrap();
    rig.submit(&abort(TWO)).unwrap();
    rig.submit(&abort(TWO)).unwrap();
    assert_eq!(rig.submit(&commit(TWO)), wrong(TWO, TxState::Aborted));
    assert_eq!(rig.submit(&prepare(TWO, &update(20, 0, b"a"))), wrong(TWO, TxState::Aborted));
    // It starts again, later.
    rig.submit(&prepare(TWO, &update(21, 0, b"a"))).unwrap();
    rig.submit(&commit(TWO)).unwrap();
    assert_eq!(state(&mut rig, TWO), TxState::Committed(21));
    rig.check();
    rig.drain(&[CID]);
}

/// What is aborted before it comes does not come any more.
#[test]
fn an_abort_may_overtake() {
    let mut rig = rig();
    rig.submit(&abort(ONE)).unwrap();
    let late = rig.submit(&prepare(ONE, &update(999, 0, b"a")));
    assert_eq!(late, Err(StageError::WrongState { id: ONE, state: TxState::Aborted }));
    rig.submit(&prepare(ONE, &update(1001, 0, b"a"))).unwrap();
    rig.submit(&abort(ONE)).unwrap();
}

/// Forgetting is not in the WAL: replay meets what was forgotten.
#[test]
fn what_was_forgotten_does_not_disturb_replay() {
    let mut rig = rig();
    rig.submit(&prepare(ONE, &update(10, 0, b"a"))).unwrap();
    rig.submit(&commit(ONE)).unwrap();
    rig.submit(&prepare(TWO, &update(11, 0, b"b"))).unwrap();
    rig.submit(&abort(TWO)).unwrap();
    rig.checkpoint();
    rig.forget_ended();
    assert_eq!(state(&mut rig, ONE), TxState::Unknown);
    rig.submit(&abort(ONE)).unwrap();
    rig.submit(&abort(TWO)).unwrap();
    rig.reopen();
    rig.check();
    assert_eq!(state(&mut rig, ONE), TxState::Aborted);
    assert_eq!(state(&mut rig, TWO), TxState::Aborted);
    assert_eq!(fetch(&mut rig, 20, b"a"), Some(Bytes::from("10")), "what it wrote stays");

    rig.forget_ended();
    rig.submit(&prepare(ONE, &update(2000, 0, b"a"))).unwrap();
    rig.submit(&commit(ONE)).unwrap();
    rig.reopen();
    rig.check();
    assert_eq!(state(&mut rig, ONE), TxState::Committed(2000));
}

#[test]
fn readers_wait_or_pass_over() {
    let mut rig = rig();
    rig.submit(&update(5, 0, b"a")).unwrap();
    rig.submit(&prepare(ONE, &update(10, 0, b"a"))).unwrap();
    let waits = Err(ReadError::InProgress { id: ONE });
    let look = |rig: &Rig, epoch| rig.vos.at(epoch).fetch(CID, &oid(0), b"d", b"a");
    assert_eq!(look(&rig, 9), Ok(Some(Bytes::from("5"))));
    assert_eq!(look(&rig, 10), waits);
    assert_eq!(rig.vos.fetch(CID, &oid(0), b"d", b"a"), waits);
    assert_eq!(rig.vos.at(10).fetch(CID, &oid(0), b"d", b"b"), Ok(None));
    let open = rig.vos.at(10).open(CID, &oid(0)).unwrap().unwrap();
    assert_eq!((open.fetch(b"d", b"b"), open.fetch(b"d", b"a")), (Ok(None), waits.clone()));
    assert_eq!(fetch(&mut rig, 10, b"a"), Some(Bytes::from("5")));
    rig.submit(&commit(ONE)).unwrap();
    assert_eq!(look(&rig, 9), Ok(Some(Bytes::from("5"))));
    assert_eq!(look(&rig, 10), Ok(Some(Bytes::from("10"))));
}

/// Who lists objects waits only for those that may be among them.
#[test]
fn lists_wait_for_what_they_list() {
    let mut rig = rig();
    (0..6).filter(|i| i % 2 == 0).for_each(|i| drop(rig.submit(&update(5, i, b"a")).unwrap()));
    rig.submit(&prepare(ONE, &update(10, 3, b"a"))).unwrap();
    let list = |rig: &Rig, epoch: u64, keys: &Keys, max| {
        rig.vos.at(epoch).objects(CID, keys, max).map(|found| found.len())
    };
    let waits = Err(ReadError::InProgress { id: ONE });
    let (all, back) = (Keys::default(), Keys::reversed());
    assert_eq!(list(&rig, 9, &all, 99), Ok(3), "before it");
    assert_eq!(
        (list(&rig, 10, &all, 99), list(&rig, 10, &back, 99)),
        (waits.clone(), waits.clone())
    );
    assert_eq!((list(&rig, 10, &all, 2), list(&rig, 10, &all, 3)), (Ok(2), waits.clone()));
    assert_eq!((list(&rig, 10, &back, 1), list(&rig, 10, &back, 2)), (Ok(1), waits.clone()));
    let below = Keys { to: Some(oid(3).0), ..Keys::default() };
    let from = Keys { from: oid(3).0, ..Keys::default() };
    assert_eq!((list(&rig, 10, &below, 99), list(&rig, 10, &from, 99)), (Ok(2), waits));
    assert_eq!(rig.vos.at(10).committed().objects(CID, &all, 99).map(|f| f.len()), Ok(3));
    rig.submit(&commit(ONE)).unwrap();
    assert_eq!(list(&rig, 10, &all, 99), Ok(4));
}

/// Whoever goes through all versions waits like any other reader.
#[test]
fn iteration_and_export_wait_or_pass_over() {
    let mut rig = rig();
    rig.submit(&update(5, 0, b"a")).unwrap();
    rig.submit(&prepare(ONE, &update(10, 0, b"a"))).unwrap();
    let iterate = |view: View<'_>, range: &Range| {
        view.iterate(CID, &oid(0), range, &Anchor::default(), 99).map(|i| i.versions.len())
    };
    let export = |view: View<'_>| {
        view.export(CID, &oid(0), &Anchor::default(), 99).map(|part| part.is_some())
    };
    let (all, newest) = (Range::default(), rig.vos.at(u64::MAX));
    let waits = ReadError::InProgress { id: ONE };
    assert_eq!(iterate(newest, &all), Err(waits.clone()));
    assert_eq!(iterate(newest.committed(), &all), Ok(1));
    assert_eq!(iterate(rig.vos.at(9), &all), Ok(1));
    let before = Range { epochs: (0, 9), ..Range::default() };
    assert_eq!(iterate(newest, &before), Ok(1));
    let one =
        |dkey: &'static str, to| Range { from: dkey.into(), to: Some(to), ..Range::default() };
    assert_eq!(iterate(newest, &one("e", Bytes::from("e\0"))), Ok(0), "another dkey");
    assert_eq!(iterate(newest, &one("d", Bytes::from("d\0"))), Err(waits.clone()));
    assert_eq!(export(newest), Err(waits));
    assert_eq!(export(newest.committed()), Ok(true));
    assert_eq!(export(rig.vos.at(9)), Ok(true));
    rig.submit(&commit(ONE)).unwrap();
    assert_eq!(iterate(rig.vos.at(u64::MAX), &all), Ok(2));
}

#[test]
fn a_commit_and_what_waited_for_it_are_one_transaction() {
    let mut rig = rig();
    rig.submit(&prepare(ONE, &update(10, 0, b"a"))).unwrap();
    rig.submit(&prepare(TWO, &update(11, 0, b"b"))).unwrap();
    assert_eq!(rig.submit(&update(20, 0, b"a")), Err(StageError::InProgress { id: ONE }));
    let mut tx = commit(ONE);
    tx.abort_prepared(TWO);
    tx.require(CID, &oid(0), Target::Dkey(Bytes::from("d")), spirula_vos::Must::Exist);
    tx.update(CID, &oid(0), b"d", b"a", Bytes::from("20"));
    rig.submit(&tx).unwrap();
    rig.reopen();
    assert_eq!(fetch(&mut rig, 1000, b"a"), Some(Bytes::from("20")));
    assert_eq!(fetch(&mut rig, 1000, b"b"), None);
    assert_eq!(state(&mut rig, TWO), TxState::Aborted);
}

#[test]
fn not_everything_can_be_prepared() {
    let mut rig = rig();
    let mut refused = |build: &dyn Fn(&mut Tx)| {
        let mut tx = update(10, 0, b"a");
        build(&mut tx);
        assert_eq!(rig.submit(&prepare(ONE, &tx)), Err(StageError::NotPreparable));
    };
    refused(&|tx| tx.create_container(ContainerId([9; 16])));
    refused(&|tx| tx.destroy_container(CID));
    refused(&|tx| tx.commit_prepared(TWO));
    refused(&|tx| tx.discard(CID, &oid(0), 1, 2));
    refused(&|tx| tx.aggregate(CID, &oid(0), spirula_vos::Cursor::default(), 10));
    refused(&|tx| *tx = Tx::new(10));
    let mut tx = update(10, 0, b"a");
    tx.require(CID, &oid(1), Target::Object, spirula_vos::Must::Exist);
    assert_eq!(rig.submit(&prepare(ONE, &tx)), Err(StageError::NonExistent));
    assert_eq!(rig.vos.prepared(), []);
    rig.submit(&prepare(ONE, &update(10, 0, b"a"))).unwrap();
    let mut tx = Tx::new(11);
    tx.destroy_container(CID);
    assert_eq!(rig.submit(&tx), Err(StageError::InProgress { id: ONE }));
}

/// A commit has what it needs, however full the store has become.
#[test]
fn a_full_store_commits() {
    for ends in [commit, abort] {
        let mut rig = rig();
        rig.submit(&update(2, 0, b"a")).unwrap();
        for n in 0..30u8 {
            let mut tx = Tx::new(u64::from(n) + 10);
            tx.set_horizon(0);
            let object = oid(u64::from(n));
            tx.write(CID, &object, b"x", b"", 0, Bytes::from(vec![n; 100_000]), None);
            for akey in 0..40u8 {
                tx.update(CID, &object, b"d", &[akey; 30], Bytes::from(vec![n; 900]));
            }
            rig.submit(&prepare(TxId([n + 10; 16]), &tx)).unwrap();
        }
        let (mut filled, mut full) = (0, [false; 2]);
        for n in 100u64.. {
            let mut tx = Tx::new(n);
            match n % 2 {
                0 => tx.write(CID, &oid(n), b"d", b"", 0, Bytes::from(vec![9; 60_000]), None),
                _ => tx.update(CID, &oid(n), b"d", b"a", Bytes::from(vec![9; 3000])),
            }
            match rig.submit(&tx) {
                Ok(_) => filled += 1,
                Err(e) => {
                    assert_eq!(e, StageError::NoSpace);
                    full[(n % 2) as usize] = true;
                }
            }
            if full == [true; 2] {
                break;
            }
        }
        assert!(filled > 100, "{filled}");
        rig.reopen();
        for n in 0..30u8 {
            rig.submit(&ends(TxId([n + 10; 16]))).unwrap();
        }
        rig.checkpoint();
        rig.check();
        rig.drain(&[CID]);
    }
}
