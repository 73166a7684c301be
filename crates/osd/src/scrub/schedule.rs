//! Which PGs are scrubbed when: what somebody asked for, then what is due by the options, as long as the
//! map's flags allow it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use spirula_maps::{flags, pool_flags};
use spirula_wire::msg::osd::OsdScrub2;
use spirula_wire::types::UTime;
use spirula_xstream::sync::Notify;
use spirula_xstream::{Class, now, random_u64, timeout, wall_now};

use super::Kind;
use super::run::{Ended, is_ready, scrub};
use crate::pg::Pg;
use crate::target::{Target, TargetError};

/// How often it is looked at what is due.
const LOOK: Duration = Duration::from_secs(10);
/// Until a PG is tried again whose scrub was not begun or not ended.
const RETRY_MS: u64 = 1000;

/// The scrubs of a target.
#[derive(Default)]
pub struct Scrubs {
    running: Cell<usize>,
    stirred: Notify,
}

impl Scrubs {
    /// Something may be due.
    pub fn stir(&self) {
        self.stirred.notify_all();
    }
}

/// Whether one more scrub may run here, of a PG that this target leads or has a copy of.
pub(super) fn has_slot(target: &Target) -> bool {
    let shards = target.shards().all();
    let given = shards.iter().filter(|shard| shard.scrub.gives_slot.get()).count();
    let max = target.option_number("osd_max_scrubs") as usize;
    given + target.scrubs().running.get() < max
}

/// The manager has PGs scrubbed.
pub fn order(target: &Target, order: &OsdScrub2) {
    let kind = Kind { deep: order.deep, repair: order.repair };
    for pg in order.pgs.iter().filter_map(|pgid| target.pgs().get(pgid.pgid)) {
        pg.shard.scrub.want(kind);
    }
    target.scrubs().stir();
}

/// Scrubs for ever.
pub async fn run(target: Target) -> Result<(), TargetError> {
    loop {
        while let Some((pg, kind)) = next(&target) {
            begin(&target, pg, kind);
        }
        let waits = target.pgs().all().iter().any(|pg| pg.shard.scrub.wanted.get().is_some());
        let look = if waits { Duration::from_millis(RETRY_MS) } else { LOOK };
        let _ = timeout(look, target.scrubs().stirred.notified()).await;
    }
}

fn next(target: &Target) -> Option<(Rc<Pg>, Kind)> {
    if !has_slot(target) {
        return None;
    }
    let (at, wall) = (now(), UTime::from(wall_now()));
    let ready = |pg: &Rc<Pg>| {
        let scrub = &pg.shard.scrub;
        is_ready(pg) && scrub.running.get().is_none() && scrub.not_before.get() <= at
    };
    let pgs: Vec<Rc<Pg>> = target.pgs().all().into_iter().filter(ready).collect();
    let wanted = |pg: &Rc<Pg>| Some((pg.clone(), pg.shard.scrub.wanted.get()?));
    let due = |pg: &Rc<Pg>| Some((pg.clone(), due(target, pg, wall)?));
    pgs.iter().find_map(wanted).or_else(|| pgs.iter().find_map(due))
}

/// What is due of a PG at a time of the wall's clock.
fn due(target: &Target, pg: &Pg, wall: UTime) -> Option<Kind> {
    let map = target.map();
    let pool = map.pool(pg.pgid.pgid.pool)?;
    let allowed = |flag, pool_flag| map.flags & flag == 0 && !pool.has_flag(pool_flag);
    let (last, last_deep) = {
        let machine = pg.shard.machine.borrow();
        let history = &machine.info().history;
        (history.last_scrub_stamp, history.last_deep_scrub_stamp)
    };
    let passed = |since: UTime, option: &str| {
        let interval = target.with_options(|o| o.seconds(option));
        let age = u64::from(wall.sec).saturating_sub(since.sec.into());
        !interval.is_zero() && age >= interval.as_secs()
    };
    let light = allowed(flags::NOSCRUB, pool_flags::NOSCRUB);
    let deep = allowed(flags::NODEEP_SCRUB, pool_flags::NODEEP_SCRUB);
    if deep && passed(last_deep, "osd_deep_scrub_interval") {
        return Some(Kind { deep: true, repair: false });
    }
    (light && passed(last, "osd_scrub_min_interval")).then_some(Kind::default())
}

fn begin(target: &Target, pg: Rc<Pg>, kind: Kind) {
    let shard = pg.shard.clone();
    let asked = shard.scrub.wanted.take();
    shard.scrub.running.set(Some(kind));
    let generation = shard.scrub.generation.get();
    target.scrubs().running.set(target.scrubs().running.get() + 1);
    target.spawn(Class::Background, move |target| async move {
        let ended = scrub(&target, &pg, kind, generation).await;
        let scrubs = target.scrubs();
        scrubs.running.set(scrubs.running.get().saturating_sub(1));
        if ended.as_ref().is_ok_and(|ended| *ended != Ended::Done) {
            // Others that wait for the same slots come at another time.
            let pause = Duration::from_millis(RETRY_MS + random_u64() % RETRY_MS);
            shard.scrub.not_before.set(now() + pause);
            asked.into_iter().for_each(|kind| shard.scrub.want(kind));
        }
        scrubs.stir();
        ended.map(|_| ())
    });
}
