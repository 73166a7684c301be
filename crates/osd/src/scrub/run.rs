//! The scrub of one PG, as its primary does it: slots of the members, then chunk by chunk the maps of all
//! copies, in the end what is to be repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use spirula_pg::scrub::{Findings, Map, compare};
use spirula_pg::{Scrubbed, State};
use spirula_store::StoreError;
use spirula_wire::msg::scrub::{ScrubRepair, ScrubRequest, scrub_reserve as word};
use spirula_wire::types::{EVersion, HObject, UTime};
use spirula_wire::{Features, Message};
use spirula_xstream::{now, sleep, timeout, wall_now, yield_now};

use super::{Kind, answer, epochs, map};
use crate::copies::list_objects;
use crate::object::cursor_key;
use crate::pg::Pg;
use crate::shard::stored::key_of;
use crate::shard::{Shard, drive};
use crate::snap::trim::Trimming;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;

/// What a copy has to answer in; a message may be lost with the state of who got it.
const PATIENCE: Duration = Duration::from_secs(300);
const SHORT_PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

/// How a scrub ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// A copy has no slot now.
    NoSlot,
    /// The interval is over, or something cannot be read.
    Aborted,
}

/// Whether a PG can be scrubbed now.
pub fn is_ready(pg: &Pg) -> bool {
    let is_clean = pg.shard.machine.borrow().state() == State::Clean;
    pg.active.get() && is_clean && pg.trimming.get() != Trimming::Runs && !pg.shard.is_held()
}

/// Scrubs a PG, in the interval of `generation`.
pub async fn scrub(
    target: &Target,
    pg: &Rc<Pg>,
    kind: Kind,
    generation: u64,
) -> Result<Ended, TargetError> {
    let shard = &pg.shard;
    let members = shard.machine.borrow().members().clone();
    let run = Run { target, pg, shard, kind, members, generation };
    if !run.goes_on() {
        return Ok(Ended::Aborted);
    }
    let ended = match run.reserve().await {
        Ended::Done => run.scrub().await,
        other => Ok(other),
    };
    if run.goes_on() {
        run.let_writes_go();
        run.members.iter().for_each(|osd| answer::send_reserve(target, shard, *osd, word::RELEASE));
        shard.scrub.grants.borrow_mut().clear();
        shard.scrub.running.set(None);
        target.report_now();
    }
    ended
}

struct Run<'a> {
    target: &'a Target,
    pg: &'a Rc<Pg>,
    shard: &'a Rc<Shard>,
    kind: Kind,
    members: BTreeSet<i32>,
    generation: u64,
}

impl Run<'_> {
    /// The interval is the one that it began in.
    fn goes_on(&self) -> bool {
        self.shard.scrub.generation.get() == self.generation && self.pg.active.get()
    }

    fn lives(&self) -> bool {
        let map = self.target.map();
        self.goes_on() && self.members.iter().all(|osd| map.is_up(*osd))
    }

    /// Whether a copy has had long enough to answer; less long while somebody wants to write.
    fn is_late(&self, asked_at: Duration) -> bool {
        let patience = if self.shard.scrub.awaited.get() { SHORT_PATIENCE } else { PATIENCE };
        now() > asked_at + patience
    }

    /// Until there is news, or a little later.
    async fn wait(&self) {
        let _ = timeout(LOOK, self.shard.scrub.wait()).await;
    }

    /// Asks the members, in the order of their ids, for slots.
    async fn reserve(&self) -> Ended {
        let scrub = &self.shard.scrub;
        let until = now() + PATIENCE;
        for osd in &self.members {
            answer::send_reserve(self.target, self.shard, *osd, word::REQUEST);
            loop {
                let answer = scrub.grants.borrow_mut().remove(osd);
                match answer {
                    Some(true) => break,
                    Some(false) => return Ended::NoSlot,
                    None if !self.lives() || now() > until => return Ended::Aborted,
                    None => self.wait().await,
                }
            }
        }
        Ended::Done
    }

    async fn scrub(&self) -> Result<Ended, TargetError> {
        let (pgid, mode) = (self.pg.pgid.pgid, self.kind.mode());
        self.target.clog().debug(self.target, format!("{pgid} {mode} starts"));
        self.target.report_now();
        let (mut found, mut after, mut fixed) = (Findings::default(), HObject::min(), 0);
        while !after.is_max() {
            match self.chunk(&after, &mut found).await {
                Ok(Some(upto)) => after = upto,
                Ok(None) => return Ok(Ended::Aborted),
                Err(e) if e == StoreError::Closed || matches!(e, StoreError::Write(_)) => {
                    return Err(e.into());
                }
                Err(e) => {
                    let text = format!("{pgid} {mode} cannot list its objects: {e}");
                    self.target.clog().error(self.target, text);
                    return Ok(Ended::Aborted);
                }
            }
            if self.kind.repair {
                // While its writes wait: then what was found still holds, and no copy lacks a write.
                fixed += self.repair(&mut found);
            }
            self.let_writes_go();
            let pause = self.target.with_options(|o| o.seconds("osd_scrub_sleep"));
            if pause.is_zero() {
                yield_now().await
            } else {
                sleep(pause).await
            }
            if !self.goes_on() {
                return Ok(Ended::Aborted);
            }
        }
        self.finish(found, fixed);
        Ok(Ended::Done)
    }

    fn let_writes_go(&self) {
        self.shard.scrub.chunk.borrow_mut().take();
        self.shard.scrub.awaited.set(false);
        self.shard.scrub.maps.borrow_mut().clear();
        self.shard.scrub.arrived.notify_all();
    }

    /// Compares what comes next, and says up to where it came. `None`: it does not go on.
    async fn chunk(
        &self,
        after: &HObject,
        found: &mut Findings,
    ) -> Result<Option<HObject>, StoreError> {
        let (store, cid, shard) = (self.target.store(), self.pg.cid, self.shard);
        let option = if self.kind.deep { "osd_scrub_chunk_min" } else { "osd_scrub_chunk_max" };
        let max = self.target.option_number(option).clamp(1, 50) as usize;
        let (_, upto) = list_objects(store, cid, after, max).await?;
        if !self.lives() {
            return Ok(None);
        }
        let key = |object: &HObject| match object.is_min() || object.is_max() {
            true => cursor_key(object),
            false => key_of(cid, object),
        };
        *shard.scrub.chunk.borrow_mut() = Some((key(after), key(&upto)));
        // All copies have what was written to it before.
        if self.pg.publisher.published(self.pg.publisher.last()).await.is_err() || !self.lives() {
            return Ok(None);
        }
        let tid = shard.scrub.last_tid.get() + 1;
        shard.scrub.last_tid.set(tid);
        self.ask(tid, after, &upto);
        let own = map::build(store, cid, (after, &upto), self.kind.deep).await?;
        let Some((maps, upto)) = self.gather(tid, own, upto).await else {
            return Ok(None);
        };
        if !self.goes_on() || upto <= *after {
            return Ok(None);
        }
        let me = self.target.config().osd_id;
        for line in compare(self.pg.pgid.pgid, &maps, me, found) {
            self.target.clog().error(self.target, line);
        }
        Ok(Some(upto))
    }

    fn ask(&self, tid: u64, after: &HObject, upto: &HObject) {
        let (map_epoch, min_epoch) = epochs(self.shard);
        let message = ScrubRequest {
            spgid: self.shard.pgid,
            map_epoch,
            min_epoch,
            tid,
            after: after.clone(),
            upto: upto.clone(),
            deep: self.kind.deep,
        };
        for osd in &self.members {
            // Where it fails, the member is down by the next map.
            let _ = self.target.peers().send(self.target, *osd, message.to_raw(0, F));
        }
    }

    /// The maps of all copies, up to where all of them go.
    async fn gather(
        &self,
        tid: u64,
        (own, own_upto): (Vec<(HObject, spirula_wire::types::ScrubObject)>, HObject),
        asked: HObject,
    ) -> Option<(BTreeMap<i32, Map>, HObject)> {
        let (me, asked_at) = (self.target.config().osd_id, now());
        let mut upto = own_upto.min(asked);
        let mut maps: BTreeMap<i32, Map> = [(me, own.into_iter().collect())].into();
        for osd in &self.members {
            let theirs = loop {
                let answer = self.shard.scrub.maps.borrow_mut().remove(&(*osd, tid));
                match answer {
                    Some(map) => break map,
                    None if !self.lives() || self.is_late(asked_at) => return None,
                    None => self.wait().await,
                }
            };
            if theirs.result != 0 {
                let pgid = self.pg.pgid.pgid;
                let text = format!("{pgid} shard {osd} cannot list its objects");
                self.target.clog().error(self.target, text);
                return None;
            }
            upto = upto.min(theirs.upto);
            maps.insert(*osd, theirs.objects.into_iter().collect());
        }
        let head = |object: &HObject| HObject {
            snap: spirula_wire::types::SnapId::HEAD,
            ..object.clone()
        };
        maps.values_mut().for_each(|map| map.retain(|object, _| head(object) <= upto));
        Some((maps, upto))
    }

    fn finish(&self, found: Findings, fixed: u64) {
        let (target, shard) = (self.target, self.shard);
        let (pgid, mode) = (self.pg.pgid.pgid, self.kind.mode());
        let clog = target.clog();
        if found.missing + found.inconsistent > 0 {
            let (missing, bad) = (found.missing, found.inconsistent);
            let text = format!("{pgid} {mode} {missing} missing, {bad} inconsistent objects");
            clog.error(target, text);
        }
        let total = found.shallow + found.deep;
        let mut text = format!("{pgid} {mode} ");
        text += &if total > 0 { format!("{total} errors") } else { "ok".to_owned() };
        if self.kind.repair {
            text += &format!(", {fixed} fixed");
        }
        if total > 0 {
            clog.error(target, text)
        } else {
            clog.debug(target, text)
        }
        let left = |of: u64| if fixed == total { 0 } else { of };
        let done = Scrubbed {
            deep: self.kind.deep,
            at: UTime::from(wall_now()),
            shallow: left(found.shallow),
            deep_errors: left(found.deep),
        };
        *shard.scrub.found.borrow_mut() = Some(found.objects);
        drive::input(target, shard, |machine| machine.scrubbed(done));
        if self.kind.repair && fixed < total {
            // Several errors may be of one copy: what is left is known when it is looked at again.
            shard.scrub.want(Kind { deep: true, repair: false });
        }
    }

    /// Has the bad copies that were found in a chunk replaced; how many.
    fn repair(&self, found: &mut Findings) -> u64 {
        let mut fixed = 0;
        for (head, repair) in std::mem::take(&mut found.repairs) {
            if !repair.is_possible()
                || !replace(self.target, self.shard, &head, repair.need, &repair.bad)
            {
                continue;
            }
            fixed += repair.bad.len() as u64;
            let of = |object: &HObject| {
                let snap = head.snap;
                HObject { snap, ..object.clone() } == head
            };
            found.objects.retain(|object, _| !of(object));
        }
        fixed
    }
}

/// Has the copies of an object at these OSDs replaced by one that another has.
pub fn replace(
    target: &Target,
    shard: &Rc<Shard>,
    object: &HObject,
    need: EVersion,
    bad: &BTreeSet<i32>,
) -> bool {
    let me = target.config().osd_id;
    let (map_epoch, min_epoch) = epochs(shard);
    let mut begun = false;
    // With what is stored next.
    shard.state.borrow_mut().missing_stored |= bad.contains(&me);
    drive::input(target, shard, |machine| {
        begun = machine.repair(object, need, bad);
        if !begun {
            return;
        }
        let (spgid, object) = (shard.pgid, object.clone());
        let message = ScrubRepair { spgid, map_epoch, min_epoch, object, need };
        for osd in bad.iter().filter(|osd| **osd != me) {
            let _ = target.peers().send(target, *osd, message.to_raw(0, F));
        }
    });
    begun
}
