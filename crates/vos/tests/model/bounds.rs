//! What is done in steps, or not at all, because an object is large.

use bytes::Bytes;
use spirula_vos::{
    Config, ContainerId, Cursor, Extent, ObjectKey, PAGE_SIZE, StageError, Tx, timestamp::Restart,
};

use crate::rig::Rig;

const CID: ContainerId = ContainerId([4; 16]);

fn oid() -> ObjectKey {
    ObjectKey::copy_from(b"large")
}

fn rig() -> Rig {
    let mut rig = Rig::new(Config { pool_bytes: 4096 * PAGE_SIZE, ..Config::default() });
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    rig.submit(&tx).unwrap();
    rig
}

/// Every other 100 bytes, so that no two become one.
fn write(tx: &mut Tx, pieces: std::ops::Range<u64>, byte: u8) {
    for i in pieces {
        tx.write(CID, &oid(), b"d", b"", i * 200, Bytes::from(vec![byte; 100]), None);
    }
}

fn submit(rig: &mut Rig, epoch: u64, build: impl FnOnce(&mut Tx)) {
    let mut tx = Tx::new(epoch);
    tx.set_horizon(1);
    build(&mut tx);
    rig.submit(&tx).unwrap();
}

/// Discards in steps of `budget`, with a crash now and then; how many there were.
fn discard(rig: &mut Rig, range: (u64, u64), budget: u32) -> usize {
    let (mut next, mut steps) = (Some(Cursor::default()), 0);
    while let Some(cursor) = next {
        let mut tx = Tx::new(1000);
        tx.discard_some(CID, &oid(), range, cursor, budget);
        rig.checkpoint();
        next = rig.submit(&tx).unwrap();
        // A step looks at few entries, and changes few for each.
        let dirty = rig.vos.stats().dirty_pages;
        assert!(dirty < 40, "{dirty} pages changed by one step");
        steps += 1;
        if steps % 20 == 0 {
            rig.reopen();
            rig.check();
        }
    }
    steps
}

fn bytes(rig: &mut Rig, epoch: u64) -> Vec<u8> {
    let extents = rig.read(|vos| vos.at(epoch).extents(CID, &oid(), b"d", b"", 0, u64::MAX));
    extents.iter().flat_map(|e| rig.bytes(e)).collect()
}

#[test]
fn a_large_array_is_discarded_in_steps() {
    let mut rig = rig();
    for first in (0..3000).step_by(100) {
        submit(&mut rig, 10, |tx| write(tx, first..first + 100, 1));
    }
    let before = bytes(&mut rig, 10);
    for first in (0..1500).step_by(100) {
        submit(&mut rig, 20, |tx| write(tx, first * 2..first * 2 + 100, 2));
    }
    // One extent covers all of them.
    submit(&mut rig, 30, |tx| tx.punch_range(CID, &oid(), b"d", b"", 0, 600_000));
    submit(&mut rig, 40, |tx| tx.truncate(CID, &oid(), b"d", b"", 7));
    let steps = discard(&mut rig, (20, u64::MAX), 64);
    assert!(steps > 50, "{steps}");
    assert_eq!(bytes(&mut rig, u64::MAX), before);
    assert_eq!(bytes(&mut rig, 10), before);
    let extents = rig.read(|vos| vos.extents(CID, &oid(), b"d", b"", 0, u64::MAX));
    assert!(extents.iter().all(|e| !matches!(e, Extent::Hole { punched: true, .. })));
    rig.check();
    rig.drain(&[CID]);
}

#[test]
fn many_versions_of_one_place_are_discarded_in_steps() {
    let mut rig = rig();
    for epoch in 10..1010 {
        submit(&mut rig, epoch, |tx| {
            tx.write(CID, &oid(), b"d", b"", 0, Bytes::from(vec![epoch as u8; 300]), None);
            tx.update(CID, &oid(), b"e", b"", Bytes::from(epoch.to_string()));
        });
    }
    let mut steps = discard(&mut rig, (100, 899), 50);
    assert!(steps > 30, "{steps}");
    for (epoch, seen) in [(99, 99), (500, 99), (899, 99), (900, 900), (u64::MAX, 1009)] {
        assert_eq!(bytes(&mut rig, epoch), vec![seen as u8; 300]);
        let value = rig.read(|vos| vos.at(epoch).fetch(CID, &oid(), b"e", b""));
        assert_eq!(value, Some(Bytes::from(u64::to_string(&seen))));
    }
    steps = discard(&mut rig, (50, u64::MAX), 50);
    assert!(steps > 5, "{steps}");
    assert_eq!(bytes(&mut rig, u64::MAX), vec![49; 300]);
    rig.check();
    rig.drain(&[CID]);
}

/// Sizes are found in steps when operations came out of order, whatever comes in between.
#[test]
fn sizes_that_came_out_of_order_are_found_in_steps() {
    let mut rig = rig();
    let grow = |rig: &mut Rig, epoch, len| {
        submit(rig, epoch, |tx| tx.write(CID, &oid(), b"d", b"", len - 1, Bytes::from("x"), None));
    };
    (0..500).for_each(|i| grow(&mut rig, 10 + 2 * (i * 7 % 500), 1 + i * 7 % 500));
    submit(&mut rig, 601, |tx| tx.truncate(CID, &oid(), b"d", b"", 40));
    let sizes = |rig: &mut Rig| {
        let mut size = |epoch| rig.read(|vos| vos.at(epoch).array_size(CID, &oid(), b"d", b""));
        [300, 599, 600, 602, 700, 898, 1008, u64::MAX].map(|epoch| size(epoch).unwrap())
    };
    assert_eq!(sizes(&mut rig), [146, 295, 296, 297, 346, 445, 500, 500]);
    let (mut next, mut steps, mut among_sizes) = (Some(Cursor::default()), 0, 0);
    while let Some(cursor) = next {
        among_sizes += usize::from(format!("{cursor:?}").contains(r#"inner: b"\x06"#));
        let mut tx = Tx::new(1100);
        tx.discard_some(CID, &oid(), (900, 1090), cursor, 20);
        rig.checkpoint();
        next = rig.submit(&tx).unwrap();
        assert!(rig.vos.stats().dirty_pages < 40);
        steps += 1;
        match steps {
            // After all, and among what was looked at already.
            10 => grow(&mut rig, 1095, 3),
            20 => grow(&mut rig, 705, 480),
            _ => {}
        }
        if steps % 20 == 0 {
            rig.reopen();
        }
    }
    assert!(among_sizes > 500 / 20, "{among_sizes} of {steps}");
    assert_eq!(sizes(&mut rig), [146, 295, 296, 297, 346, 480, 480, 480]);
    rig.check();
    rig.drain(&[CID]);
}

/// It would have to look at all that came later.
#[test]
fn a_late_punch_of_a_large_object_starts_again() {
    let mut rig = rig();
    let fill = |rig: &mut Rig, epoch, akeys: std::ops::Range<u64>| {
        submit(rig, epoch, |tx| {
            akeys.for_each(|a| tx.update(CID, &oid(), b"d", &a.to_be_bytes(), Bytes::new()));
        });
    };
    (0..40).for_each(|n| fill(&mut rig, 20, n * 100..n * 100 + 100));
    let punch = |rig: &mut Rig, epoch| {
        let mut tx = Tx::new(epoch);
        tx.set_horizon(1);
        tx.punch_object(CID, &oid());
        rig.submit(&tx)
    };
    punch(&mut rig, 10).unwrap();
    let exists = |vos: &spirula_vos::Vos| vos.at(u64::MAX).object_exists(CID, &oid());
    assert!(rig.read(exists));
    fill(&mut rig, 30, 4000..4100);
    let refused = punch(&mut rig, 15).unwrap_err();
    assert!(matches!(refused, StageError::Restart(Restart { after: 30, .. })), "{refused}");
    punch(&mut rig, 31).unwrap();
    assert!(!rig.read(exists));
    rig.check();
    rig.drain(&[CID]);
}
