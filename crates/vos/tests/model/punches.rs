//! An object with very many punches that somebody may look behind: what one more costs, what is seen, and
//! how they end.

use std::ops::Range;

use bytes::Bytes;
use spirula_vos::{Anchor, Config, ContainerId, Cursor, ObjectKey, PAGE_SIZE, PunchDump, Tx};

use crate::rig::Rig;

const CID: ContainerId = ContainerId([5; 16]);
const AKEYS: u64 = 2000;
/// Punches and writes of a whole dkey.
const ROUNDS: u64 = 60;

fn oid() -> ObjectKey {
    ObjectKey::copy_from(b"object")
}

fn submit(rig: &mut Rig, epoch: u64, build: impl FnOnce(&mut Tx)) -> Option<Cursor> {
    let mut tx = Tx::new(epoch);
    tx.set_horizon(1);
    build(&mut tx);
    rig.submit(&tx).unwrap()
}

fn write(tx: &mut Tx, dkey: &[u8], akey: u64, byte: u8) {
    tx.write(CID, &oid(), dkey, &akey.to_be_bytes(), 0, Bytes::from(vec![byte]), None);
}

fn size(rig: &mut Rig, oid: &ObjectKey, epoch: u64, dkey: &[u8], akey: u64) -> Option<u64> {
    rig.read(|vos| vos.at(epoch).array_size(CID, oid, dkey, &akey.to_be_bytes()))
}

fn punches(rig: &mut Rig, oid: &ObjectKey) -> Vec<PunchDump> {
    let mut all = rig.read(|vos| vos.dump_object(CID, oid)).map_or(Vec::new(), |o| o.punches);
    all.sort_by_key(|p| (p.dkey.clone(), p.epoch, p.from.clone()));
    all
}

/// Arrays written at 10 and punched at 20, one by one; and one dkey punched again and again from 30 on,
/// every other time written in between.
fn punched() -> Rig {
    let mut rig = Rig::new(Config { pool_bytes: 4096 * PAGE_SIZE, ..Config::default() });
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    rig.submit(&tx).unwrap();
    let all = |rig: &mut Rig, epoch, act: &dyn Fn(&mut Tx, u64)| {
        for first in (0..AKEYS).step_by(100) {
            submit(rig, epoch, |tx| (first..first + 100).for_each(|a| act(tx, a)));
        }
        rig.checkpoint();
    };
    all(&mut rig, 10, &|tx, a| write(tx, b"d", a, 1));
    all(&mut rig, 20, &|tx, a| tx.punch_akey(CID, &oid(), b"d", &a.to_be_bytes()));
    for round in 0..ROUNDS {
        submit(&mut rig, 30 + 2 * round, |tx| write(tx, b"e", 0, 1));
        submit(&mut rig, 31 + 2 * round, |tx| tx.punch_dkey(CID, &oid(), b"e"));
    }
    rig.checkpoint();
    rig
}

fn verify(rig: &mut Rig, oid: &ObjectKey) {
    for akey in [0, 1, AKEYS / 2, AKEYS - 1] {
        let sizes = [9, 19, 20, u64::MAX].map(|epoch| size(rig, oid, epoch, b"d", akey));
        assert_eq!(sizes, [None, Some(1), None, None], "akey {akey}");
    }
    for round in [0, 1, ROUNDS - 1] {
        let at = 30 + 2 * round;
        let sizes = [at - 1, at, at + 1].map(|epoch| size(rig, oid, epoch, b"e", 0));
        assert_eq!(sizes, [None, Some(1), None], "round {round}");
    }
}

#[test]
fn one_more_of_many_punches_changes_few_pages() {
    let mut rig = punched();
    assert_eq!(punches(&mut rig, &oid()).len() as u64, AKEYS + ROUNDS);
    verify(&mut rig, &oid());
    submit(&mut rig, 300, |tx| tx.punch_dkey(CID, &oid(), b"d"));
    submit(&mut rig, 300, |tx| tx.punch_akeys(CID, &oid(), b"f", b"a", Some(b"b")));
    let dirty = rig.vos.stats().dirty_pages;
    assert!(dirty <= 8, "{dirty} pages changed by two punches");
    verify(&mut rig, &oid());
    rig.check();
    rig.reopen();
    verify(&mut rig, &oid());
    // Of the same keys only those stay that somebody sees.
    let same = |rig: &mut Rig, range: Range<u64>| {
        for epoch in range {
            submit(rig, epoch, |tx| tx.punch_akeys(CID, &oid(), b"g", b"", Some(b"b")));
        }
        punches(rig, &oid()).len() as u64
    };
    assert_eq!(same(&mut rig, 301..304), AKEYS + ROUNDS + 2 + 3);
    let mut tx = Tx::new(310);
    tx.punch_akeys(CID, &oid(), b"g", b"", Some(b"b"));
    rig.submit(&tx).unwrap();
    assert_eq!(punches(&mut rig, &oid()).len() as u64, AKEYS + ROUNDS + 2 + 3 - 1 + 1);
    rig.check();
    rig.drain(&[CID]);
}

#[test]
fn many_punches_are_aggregated_and_discarded_in_steps() {
    for horizon in [60, 1000] {
        let mut rig = punched();
        let (mut next, mut steps) = (Some(Cursor::default()), 0);
        while let Some(cursor) = next {
            let mut tx = Tx::new(1000);
            tx.set_horizon(horizon);
            tx.aggregate(CID, &oid(), cursor, 50);
            rig.checkpoint();
            next = rig.submit(&tx).unwrap();
            let dirty = rig.vos.stats().dirty_pages;
            assert!(dirty < 40, "{dirty} pages changed by one step");
            steps += 1;
            if steps % 20 == 0 {
                rig.reopen();
            }
        }
        assert!(steps > 60, "{steps}");
        let left = punches(&mut rig, &oid());
        assert!(left.iter().all(|p| p.epoch.hlc >= horizon), "{left:?}");
        assert_eq!(left.is_empty(), horizon == 1000);
        assert_eq!(size(&mut rig, &oid(), horizon, b"e", 0), (horizon == 60).then_some(1));
        rig.check();
        rig.drain(&[CID]);
    }
    let mut rig = punched();
    let (mut next, mut steps) = (Some(Cursor::default()), 0);
    while let Some(cursor) = next {
        let mut tx = Tx::new(1000);
        tx.discard_some(CID, &oid(), (20, 20), cursor, 50);
        next = rig.submit(&tx).unwrap();
        steps += 1;
    }
    assert!(steps > 60, "{steps}");
    assert_eq!(punches(&mut rig, &oid()).len() as u64, ROUNDS);
    assert_eq!(size(&mut rig, &oid(), 20, b"d", 7), Some(1));
    rig.check();
    rig.drain(&[CID]);
}

#[test]
fn many_punches_are_exported_and_taken_in() {
    let (mut rig, copy) = (punched(), ObjectKey::copy_from(b"copy"));
    let (mut anchor, mut parts) = (Some(Anchor::default()), 0);
    while let Some(at) = anchor {
        let part = rig.read(|vos| vos.export(CID, &oid(), &at, 100)).unwrap();
        let mut tx = Tx::new(1);
        tx.import(CID, &copy, part.entries, Vec::new()).unwrap();
        rig.submit(&tx).unwrap();
        (anchor, parts) = (part.next, parts + 1);
        if parts % 20 == 0 {
            rig.reopen();
        }
    }
    assert!(parts > 2 * AKEYS as usize / 100, "{parts}");
    verify(&mut rig, &copy);
    let (first, second) = (punches(&mut rig, &oid()), punches(&mut rig, &copy));
    assert_eq!(first, second);
    let part = rig.read(|vos| vos.export(CID, &oid(), &Anchor::default(), 100)).unwrap();
    let mut tx = Tx::new(1);
    tx.import(CID, &copy, part.entries, Vec::new()).unwrap();
    assert!(rig.submit(&tx).is_err(), "it is there");
    rig.check();
    rig.drain(&[CID]);
}

/// Nobody sees a version that a punch hid, so it is not kept; but it ended older ones that somebody sees.
#[test]
fn what_a_punch_hid_has_still_ended_what_was_before() {
    let mut rig = Rig::new(Config::default());
    let mut run = |epoch, horizon, build: &dyn Fn(&mut Tx)| {
        let mut tx = Tx::new(epoch);
        tx.set_horizon(horizon);
        build(&mut tx);
        rig.submit(&tx).unwrap();
    };
    let write = |tx: &mut Tx, at, byte| {
        tx.write(CID, &oid(), b"d", b"a", at, Bytes::from(vec![byte; 100]), None);
    };
    run(1, 1, &|tx| tx.create_container(CID));
    run(10, 1, &|tx| write(tx, 0, 1));
    run(20, 1, &|tx| write(tx, 0, 2));
    run(21, 1, &|tx| tx.retain_container(CID, &[15]));
    run(30, 30, &|tx| tx.punch_object(CID, &oid()));
    run(50, 40, &|tx| write(tx, 1000, 3));
    run(60, 40, &|tx| tx.discard(CID, &oid(), 45, 60));
    let extents = rig.read(|vos| vos.at(15).extents(CID, &oid(), b"d", b"a", 0, 100));
    assert_eq!(extents.iter().flat_map(|e| rig.bytes(e)).collect::<Vec<u8>>(), [1; 100]);
    rig.check();
    rig.drain(&[CID]);
}
