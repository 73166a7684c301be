//! Rules with an error of their own: of the same epoch, of the kind of an akey, of sizes.

use bytes::Bytes;
use spirula_vos::{
    ARRAY_SIZE_MAX, Config, ContainerId, Cursor, KEY_LEN_MAX, ObjectKey, StageError, Tx,
    VALUE_LEN_MAX,
};

use crate::rig::Rig;

const CID: ContainerId = ContainerId([5; 16]);

fn oid() -> ObjectKey {
    ObjectKey::copy_from(b"object")
}

fn rig() -> Rig {
    let mut rig = Rig::new(Config::default());
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    rig.submit(&tx).unwrap();
    rig
}

/// A transaction of this epoch and horizon.
fn submit(
    rig: &mut Rig,
    (epoch, horizon): (u64, u64),
    build: &dyn Fn(&mut Tx),
) -> Result<(), StageError> {
    let mut tx = Tx::new(epoch);
    tx.set_horizon(horizon);
    build(&mut tx);
    rig.submit(&tx).map(|_| ())
}

fn bytes(rig: &mut Rig, epoch: u64) -> Vec<u8> {
    let extents = rig.read(|vos| vos.at(epoch).extents(CID, &oid(), b"d", b"a", 0, u64::MAX));
    extents.iter().flat_map(|e| rig.bytes(e)).collect()
}

/// What is written again at its epoch is replaced as a whole or not at all, in order or late.
#[test]
fn a_write_of_the_same_epoch_replaces_all_of_the_other() {
    let mut rig = rig();
    let write = |at: u64, len: usize, byte: u8| {
        move |tx: &mut Tx| tx.write(CID, &oid(), b"d", b"a", at, vec![byte; len].into(), None)
    };
    assert_eq!(submit(&mut rig, (10, 1), &write(0, 8192, 1)), Ok(()));
    for late in [false, true] {
        if late {
            assert_eq!(submit(&mut rig, (20, 1), &write(4096, 4096, 9)), Ok(()));
        }
        let byte = if late { 3 } else { 2 };
        assert_eq!(
            submit(&mut rig, (10, 1), &write(0, 4096, 8)),
            if late { Ok(()) } else { Err(StageError::SameEpoch) }
        );
        let partly = submit(&mut rig, (10, 1), &write(2048, 4096, 8));
        assert_eq!(partly, Err(StageError::SameEpoch));
        assert_eq!(submit(&mut rig, (10, 1), &write(0, 8192, byte)), Ok(()));
        assert_eq!(bytes(&mut rig, 10), vec![byte; 8192]);
    }
    assert_eq!(bytes(&mut rig, 20), [vec![3; 4096], vec![9; 4096]].concat());
    let value = |value: &'static str| {
        move |tx: &mut Tx| tx.update(CID, &oid(), b"e", b"a", Bytes::from(value))
    };
    assert_eq!(submit(&mut rig, (10, 1), &value("one")), Ok(()));
    assert_eq!(submit(&mut rig, (10, 1), &value("two")), Ok(()));
    let found = rig.read(|vos| vos.at(10).fetch(CID, &oid(), b"e", b"a"));
    assert_eq!(found, Some(Bytes::from("two")));
    rig.check();
    rig.drain(&[CID]);
}

#[test]
fn what_is_too_large_is_refused() {
    let mut rig = rig();
    let long = vec![b'k'; KEY_LEN_MAX + 1];
    let key = Err(StageError::KeyLength(long.len()));
    for (dkey, akey) in [(&long[..], &b"a"[..]), (b"d", &long)] {
        let build = |tx: &mut Tx| tx.update(CID, &oid(), dkey, akey, Bytes::new());
        assert_eq!(submit(&mut rig, (10, 1), &build), key);
        let build = |tx: &mut Tx| tx.truncate(CID, &oid(), dkey, akey, 1);
        assert_eq!(submit(&mut rig, (10, 1), &build), key);
    }
    let large = |tx: &mut Tx| {
        tx.write(CID, &oid(), b"d", b"a", ARRAY_SIZE_MAX - 1, Bytes::from("no"), None);
    };
    assert_eq!(submit(&mut rig, (10, 1), &large), Err(StageError::TooLarge));
    let value = Bytes::from(vec![0; VALUE_LEN_MAX + 1]);
    let large = |tx: &mut Tx| tx.update(CID, &oid(), b"d", b"a", value.clone());
    let refused = submit(&mut rig, (10, 1), &large);
    assert!(matches!(refused, Err(StageError::TooLarge | StageError::NoSpace)), "{refused:?}");
    assert!(!rig.read(|vos| vos.object_exists(CID, &oid())));
    let longest = vec![b'k'; KEY_LEN_MAX];
    let build = |tx: &mut Tx| tx.update(CID, &oid(), &longest, &longest, Bytes::from("v"));
    assert_eq!(submit(&mut rig, (10, 1), &build), Ok(()));
    rig.check();
    rig.drain(&[CID]);
}

/// An akey is of one kind as long as a version of it is kept.
#[test]
fn the_kind_of_an_akey_changes_when_its_versions_are_gone() {
    let mut rig = rig();
    let array = |tx: &mut Tx| tx.write(CID, &oid(), b"d", b"a", 0, Bytes::from("array"), None);
    let value = |tx: &mut Tx| tx.update(CID, &oid(), b"d", b"a", Bytes::from("value"));
    let punch = |tx: &mut Tx| tx.punch_akey(CID, &oid(), b"d", b"a");
    let aggregate = |rig: &mut Rig, horizon| {
        let mut tx = Tx::new(horizon);
        tx.aggregate(CID, &oid(), Cursor::default(), 1000);
        rig.submit(&tx).unwrap();
    };
    let wrong = Err(StageError::WrongKind);
    assert_eq!(submit(&mut rig, (10, 1), &array), Ok(()));
    assert_eq!(submit(&mut rig, (11, 1), &value), wrong);
    assert_eq!(submit(&mut rig, (20, 1), &punch), Ok(()));
    assert_eq!(submit(&mut rig, (30, 1), &value), wrong, "somebody still sees the array");
    assert_eq!(submit(&mut rig, (5, 1), &value), wrong);
    aggregate(&mut rig, 20);
    assert_eq!(submit(&mut rig, (30, 20), &value), Ok(()));
    assert_eq!(submit(&mut rig, (40, 20), &punch), Ok(()));
    assert_eq!(submit(&mut rig, (50, 20), &array), wrong);
    aggregate(&mut rig, 40);
    assert_eq!(submit(&mut rig, (50, 40), &array), Ok(()));
    // Without history a punch is enough.
    let again = |tx: &mut Tx| {
        punch(tx);
        value(tx);
        punch(tx);
        array(tx);
    };
    assert_eq!(submit(&mut rig, (60, 60), &again), Ok(()));
    rig.check();
    rig.drain(&[CID]);
}
