//! An object with very many dkeys: what an operation on it costs, lists in both orders, and its end.

use bytes::Bytes;
use spirula_vos::{Anchor, Config, ContainerId, Found, Keys, ObjectKey, PAGE_SIZE, Pick, Tx};

use crate::rig::Rig;

const CID: ContainerId = ContainerId([1; 16]);
const DKEYS: usize = 20_000;

fn oid() -> ObjectKey {
    ObjectKey::copy_from(b"object")
}

fn dkey(i: usize) -> Bytes {
    Bytes::from(format!("dkey{i:06}"))
}

fn filled() -> Rig {
    let mut rig = Rig::new(Config { pool_bytes: 4096 * PAGE_SIZE, ..Config::default() });
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    rig.submit(&tx).unwrap();
    for first in (0..DKEYS).step_by(100) {
        let mut tx = Tx::new(1 + first as u64);
        // In an order that is not theirs.
        let some = (first..first + 100).map(|i| i * 7919 % DKEYS);
        some.for_each(|i| tx.update(CID, &oid(), &dkey(i), b"a", dkey(i)));
        rig.submit(&tx).unwrap();
        if first % 4000 == 0 {
            rig.checkpoint();
        }
    }
    rig.checkpoint();
    rig
}

#[test]
fn an_update_among_many_dkeys_changes_few_pages() {
    let mut rig = filled();
    let before = rig.vos.stats();
    assert!(before.pages > 50, "{before:?}");
    for (i, value) in [(5, "new"), (DKEYS + 1, "newer"), (777, "newest")] {
        let mut tx = Tx::new(DKEYS as u64 + 9);
        tx.update(CID, &oid(), &dkey(i), b"a", Bytes::from(value));
        rig.submit(&tx).unwrap();
        let found = rig.read(|vos| vos.fetch(CID, &oid(), &dkey(i), b"a"));
        assert_eq!(found, Some(Bytes::from(value)));
    }
    let dirty = rig.vos.stats().dirty_pages;
    assert!(dirty <= 15, "{dirty} pages changed by three updates");
    rig.check();
    rig.reopen();
    rig.check();
    rig.drain(&[CID]);
}

#[test]
fn many_dkeys_are_listed_in_both_orders() {
    let mut rig = filled();
    for reverse in [false, true] {
        let mut want: Vec<Bytes> = (100..3000).map(dkey).collect();
        let all = Keys { from: dkey(100), to: Some(dkey(3000)), reverse, changed_from: 0 };
        if reverse {
            want.reverse();
        }
        for some in [1, 17, 5000] {
            let found = rig.read(|vos| vos.at(u64::MAX).dkeys(CID, &oid(), &all, some));
            assert_eq!(found, want[..some.min(want.len())]);
        }
    }
    for (pick, i) in [(Pick::Min, 0), (Pick::Max, DKEYS - 1)] {
        let found =
            rig.read(|vos| vos.at(u64::MAX).query_key(CID, &oid(), &pick, &Pick::Min, None));
        assert_eq!(found, Some(Found { dkey: dkey(i), akey: "a".into(), range: None }));
    }
}

#[test]
fn dkeys_without_akeys_leave_nothing() {
    let mut rig = filled();
    for first in (0..DKEYS).step_by(100) {
        let mut tx = Tx::new(DKEYS as u64 + first as u64);
        for i in first..first + 100 {
            match i % 3 {
                0 => tx.punch_akey(CID, &oid(), &dkey(i), b"a"),
                1 => tx.punch_dkey(CID, &oid(), &dkey(i)),
                _ => tx.punch_akeys(CID, &oid(), &dkey(i), b"a", Some(b"b")),
            }
        }
        rig.submit(&tx).unwrap();
        if first % 2000 == 0 {
            rig.checkpoint();
            rig.check();
        }
    }
    assert!(rig.read(|vos| vos.object_exists(CID, &oid())));
    let all = Keys::default();
    assert!(rig.read(|vos| vos.at(u64::MAX).dkeys(CID, &oid(), &all, 9)).is_empty());
    while rig.vos.has_garbage() {
        rig.collect(1000);
    }
    assert!(rig.vos.stats().pages <= 2, "{:?}", rig.vos.stats());
    rig.check();
}

#[test]
fn many_dkeys_are_exported_and_taken_in() {
    let mut rig = filled();
    let copy = ObjectKey::copy_from(b"copy");
    let mut anchor = Some(Anchor::default());
    while let Some(at) = anchor.take() {
        let part = rig.read(|vos| vos.export(CID, &oid(), &at, 300)).unwrap();
        let mut tx = Tx::new(DKEYS as u64);
        tx.import(CID, &copy, part.entries, Vec::new()).unwrap();
        rig.submit(&tx).unwrap();
        rig.checkpoint();
        anchor = part.next;
    }
    let list = |rig: &mut Rig, oid: &ObjectKey| {
        rig.read(|vos| vos.at(u64::MAX).dkeys(CID, oid, &Keys::default(), usize::MAX))
    };
    assert_eq!(list(&mut rig, &copy), (0..DKEYS).map(dkey).collect::<Vec<_>>());
    rig.check();
    let mut tx = Tx::new(2 * DKEYS as u64);
    tx.punch_object(CID, &oid());
    rig.submit(&tx).unwrap();
    while rig.vos.has_garbage() {
        rig.collect(500);
    }
    rig.check();
    assert_eq!(list(&mut rig, &copy).len(), DKEYS);
    rig.drain(&[CID]);
}
