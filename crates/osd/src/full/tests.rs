//! Levels as Ceph's OSD finds them.

use spirula_wire::types::{PgId, SpgId};

use super::*;

#[test]
fn ratios_ascend_and_make_levels() {
    // nearfull, backfillfull, full, failsafe; used; level
    let rows = [
        ([0.85, 0.9, 0.95, 0.97], 0.85, Level::None),
        ([0.85, 0.9, 0.95, 0.97], 0.86, Level::Nearfull),
        ([0.85, 0.9, 0.95, 0.97], 0.91, Level::Backfillfull),
        ([0.85, 0.9, 0.95, 0.97], 0.96, Level::Full),
        ([0.85, 0.9, 0.95, 0.97], 0.98, Level::Failsafe),
        ([0.85, 0.9, 0.95, 97.0], 0.98, Level::Failsafe),
        // What is out of order counts as the one before.
        ([0.95, 0.9, 0.85, 0.97], 0.94, Level::None),
        ([0.95, 0.9, 0.85, 0.97], 0.96, Level::Full),
        ([0.85, 0.9, 0.99, 0.97], 0.98, Level::Backfillfull),
        ([0.85, 0.9, 0.0, 0.97], 0.91, Level::Full),
        // Nobody has set them.
        ([0.0, 0.0, 0.0, 0.97], 0.96, Level::None),
        ([0.0, 0.0, 0.0, 0.97], 0.98, Level::Failsafe),
    ];
    for ([nearfull_ratio, backfillfull_ratio, full_ratio, failsafe], used, want) in rows {
        let map = OsdMap { nearfull_ratio, backfillfull_ratio, full_ratio, ..OsdMap::default() };
        assert_eq!(Ratios::of(&map, failsafe).level(used), want, "{used} of {map:?}");
    }
}

#[test]
fn what_came_too_early_is_dropped() {
    let full = Fullness::default();
    let (try_, force) = (flag::FULL_TRY, flag::FULL_FORCE);
    let dropped = |epoch: u32, flags: u32| {
        let pgid = SpgId { pgid: PgId::new(3, 0), ..SpgId::default() };
        full.drops(&OsdOpMsg { spgid: pgid, map_epoch: epoch, flags, ..OsdOpMsg::default() })
            .is_some()
    };
    assert!(!dropped(1, 0));
    full.marked.borrow_mut().insert(3, 7);
    assert!(dropped(6, 0));
    assert!(!dropped(7, 0));
    assert!(!dropped(6, try_) && !dropped(6, force));
    full.injected.set((Level::Failsafe, 2));
    assert!(dropped(7, 0));
    assert!(!dropped(7, try_) && !dropped(7, force));
    assert!(dropped(7, 0));
    assert!(!dropped(7, 0));
    full.injected.set((Level::Failsafe, -1));
    assert!((0..9).all(|_| dropped(7, 0)));
    full.injected.set((Level::Full, -1));
    assert!(!dropped(7, 0));
}
