//! Recovery and backfill: carries out what the machine says is to be copied, and what others ask for.
//!
//! An object goes in parts, each answered before the next one leaves. Nobody writes it meanwhile: the
//! machine holds up writes to what is missing or being copied somewhere.
//!
//! Invariant: what was begun in an interval has no effect in the next one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use spirula_msgr::on_xstream::Incoming as Received;
use spirula_pg::{Recover, State};
use spirula_vos::ObjectKey;
use spirula_wire::msg::copies::{
    ObjectPull, ObjectPush, ObjectPushReply, ObjectScan, ObjectScanReply,
};
use spirula_wire::types::{EVersion, HObject};
use spirula_wire::{Features, Message};
use spirula_xstream::sync::Notify;
use spirula_xstream::{Class, sleep};

use super::stored::key_of;
use super::{Shard, drive};
use crate::copies::{self, Added, CopyError, Incoming, Part};
use crate::pg::Pg;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;
/// Objects that a PG copies at a time (`osd_recovery_max_active_ssd`).
const ACTIVE_MAX: usize = 10;
/// Objects listed at a time (`osd_backfill_scan_max`).
const SCAN_MAX: u32 = 512;
/// Until what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
const NOTHING: EVersion = EVersion { epoch: 0, version: 0 };

/// What a shard copies.
#[derive(Default)]
pub struct Copying {
    /// Of the interval: tasks of others stop.
    generation: Cell<u64>,
    /// Pushes of this primary that are under way.
    pushes: Cell<usize>,
    /// From whom objects are pulled.
    pulls: RefCell<BTreeMap<HObject, i32>>,
    /// Answers that nobody has taken yet.
    replies: RefCell<BTreeMap<(i32, HObject), ObjectPushReply>>,
    scans: RefCell<BTreeMap<u64, ObjectScanReply>>,
    last_scan: Cell<u64>,
    /// Objects that are coming in.
    incoming: RefCell<BTreeMap<HObject, Incoming>>,
    /// An answer came, or somebody went.
    arrived: Notify,
    /// Objects and bytes that this primary made whole somewhere, for statistics.
    recovered: Cell<(i64, i64)>,
}

impl Copying {
    /// The interval is over.
    pub fn cancel(&self) {
        self.generation.set(self.generation.get() + 1);
        self.pushes.set(0);
        self.pulls.borrow_mut().clear();
        self.replies.borrow_mut().clear();
        self.scans.borrow_mut().clear();
        self.incoming.borrow_mut().clear();
        self.arrived.notify_all();
    }

    pub fn recovered(&self) -> (i64, i64) {
        self.recovered.get()
    }

    fn count(&self, objects: i64, bytes: usize) {
        let (of_objects, of_bytes) = self.recovered.get();
        self.recovered.set((of_objects + objects, of_bytes + bytes as i64));
    }

    fn active(&self) -> usize {
        self.pushes.get() + self.pulls.borrow().len()
    }
}

/// Whether what was begun in this generation still counts, and its peer lives.
fn goes_on(target: &Target, shard: &Shard, generation: u64, osd: i32) -> bool {
    shard.copying.generation.get() == generation && target.map().is_up(osd)
}

/// Begins what can be begun.
pub fn go_on(target: &Target, shard: &Rc<Shard>) {
    if shard.is_held() || shard.machine.borrow().state() != State::Active {
        return;
    }
    give_up_dead_sources(target, shard);
    let room = ACTIVE_MAX.saturating_sub(shard.copying.active());
    let (copies, scans) = {
        let mut machine = shard.machine.borrow_mut();
        (machine.recover(room), machine.backfill_scans())
    };
    for copy in copies {
        match copy {
            Recover::Pull { object, need, from } => pull(target, shard, object, need, &from),
            Recover::Push { object, to } => {
                to.into_iter().for_each(|osd| push(target, shard, &object, osd));
            }
        }
    }
    scans.into_iter().for_each(|(osd, after)| compare(target, shard, osd, after));
    drive::drive(target, shard);
}

fn give_up_dead_sources(target: &Target, shard: &Shard) {
    let map = target.map();
    shard.copying.pulls.borrow_mut().retain(|object, osd| {
        let lives = map.is_up(*osd);
        if !lives {
            shard.machine.borrow_mut().recovery_failed(object, *osd);
        }
        lives
    });
}

/// A new map came: peers that are waited for may have gone.
pub fn map_changed(shard: &Shard) {
    shard.copying.arrived.notify_all();
}

/// Waits until something became whole, or the interval ended; the object is recovered soon.
pub async fn wait(target: &Target, pg: &Pg, object: &HObject) {
    pg.shard.machine.borrow_mut().recover_soon(object);
    go_on(target, &pg.shard);
    let still = pg.shard.gives_up(object) || {
        let machine = pg.shard.machine.borrow();
        machine.holds_up_read(object).or(machine.holds_up_write(object)).is_some()
    };
    if still && pg.active.get() {
        pg.shard.progress.notified().await;
    }
}

// --- pushing

fn push(target: &Target, shard: &Rc<Shard>, object: &HObject, osd: i32) {
    let (copying, object) = (&shard.copying, object.clone());
    copying.pushes.set(copying.pushes.get() + 1);
    let (generation, shard) = (copying.generation.get(), shard.clone());
    target.spawn(Class::Background, move |target| async move {
        let done = send_object(&target, &shard, generation, osd, &object, NOTHING).await;
        if !matches!(done, Ok(true)) {
            sleep(RETRY).await;
        }
        if shard.copying.generation.get() != generation {
            return stop_if_stopped(done);
        }
        shard.copying.pushes.set(shard.copying.pushes.get() - 1);
        let whole = matches!(done, Ok(true));
        shard.copying.count(i64::from(whole), 0);
        drive::input(&target, &shard, |machine| {
            match whole {
                true => machine.pushed(osd, &object),
                false => machine.recovery_failed(&object, osd),
            }
            machine.check_progress();
        });
        shard.progress.notify_all();
        stop_if_stopped(done)
    });
}

/// What concerns the object alone is tried again.
fn stop_if_stopped(done: Result<bool, CopyError>) -> Result<(), TargetError> {
    match done {
        Err(e) => match e.stopped() {
            Some(e) => Err(e.into()),
            None => {
                tracing::warn!("an object is not copied: {e}");
                Ok(())
            }
        },
        Ok(_) => Ok(()),
    }
}

/// Sends an object, at `need` or later, or that it does not exist; whether it was stored.
async fn send_object(
    target: &Target,
    shard: &Shard,
    generation: u64,
    osd: i32,
    object: &HObject,
    need: EVersion,
) -> Result<bool, CopyError> {
    let key = ObjectKey(key_of(shard.cid, object));
    let Some(mut outgoing) = copies::read_object(target.store(), shard.cid, &key).await? else {
        let gone = Part { number: 0, last: true, data: Vec::new() };
        return Ok(send_part(target, shard, generation, osd, (object, NOTHING), gone).await);
    };
    let version = outgoing.version();
    if version < need || version == NOTHING {
        return Err(CopyError::Gone);
    }
    while let Some(part) = outgoing.next().await? {
        if !send_part(target, shard, generation, osd, (object, version), part).await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the part was stored.
async fn send_part(
    target: &Target,
    shard: &Shard,
    generation: u64,
    osd: i32,
    (object, version): (&HObject, EVersion),
    part: Part,
) -> bool {
    if !goes_on(target, shard, generation, osd) {
        return false;
    }
    let (map_epoch, min_epoch) = epochs(shard);
    let number = part.number;
    let bytes = part.data.len();
    let message = ObjectPush {
        spgid: shard.pgid,
        map_epoch,
        min_epoch,
        object: object.clone(),
        version,
        part: number,
        last: part.last,
        data: part.data,
    };
    let key = (osd, object.clone());
    // Of an earlier attempt.
    shard.copying.replies.borrow_mut().remove(&key);
    // It says what is durable here.
    let durable = shard.local.published(shard.local.last()).await.is_ok();
    if !durable || target.peers().send(target, osd, message.to_raw(0, F)).is_err() {
        return false;
    }
    loop {
        let reply = shard.copying.replies.borrow_mut().remove(&key);
        match reply {
            Some(reply) if reply.part == number => {
                let is_stored = reply.result == 0;
                // What another primary asked for is counted there.
                if is_stored && shard.machine.borrow().is_primary() {
                    shard.copying.count(0, bytes);
                }
                return is_stored;
            }
            Some(_) => {}
            None if goes_on(target, shard, generation, osd) => {
                shard.copying.arrived.notified().await;
            }
            None => return false,
        }
    }
}

fn epochs(shard: &Shard) -> (u32, u32) {
    let machine = shard.machine.borrow();
    (machine.map().epoch, machine.info().history.same_interval_since)
}

/// A part was stored at its destination, or a source has nothing to give.
pub fn take_push_reply(target: &Target, from: i32, incoming: Received) {
    let Ok(reply) = ObjectPushReply::from_raw(&incoming.raw) else {
        return tracing::error!(from, "the answer to a push does not decode");
    };
    let Some(shard) = current(target, reply.spgid.pgid, reply.map_epoch) else {
        return;
    };
    let pulled = shard.copying.pulls.borrow().get(&reply.object) == Some(&from);
    if pulled && reply.result < 0 {
        return pull_failed(target, &shard, &reply.object, from);
    }
    shard.copying.replies.borrow_mut().insert((from, reply.object.clone()), reply);
    shard.copying.arrived.notify_all();
}

fn current(target: &Target, pgid: spirula_wire::types::PgId, epoch: u32) -> Option<Rc<Shard>> {
    let shard = target.shards().get(pgid)?;
    let is_current = !shard.is_held() && shard.machine.borrow().is_current(epoch);
    is_current.then_some(shard)
}

// --- pulling

fn pull(target: &Target, shard: &Rc<Shard>, object: HObject, need: EVersion, from: &[i32]) {
    let (map_epoch, min_epoch) = epochs(shard);
    let Some(&osd) = from.first() else {
        return;
    };
    let ask = ObjectPull { spgid: shard.pgid, map_epoch, min_epoch, object: object.clone(), need };
    shard.copying.pulls.borrow_mut().insert(object, osd);
    // Where it fails, the source is down by the next map.
    let _ = target.peers().send(target, osd, ask.to_raw(0, F));
}

/// Another source is asked after a while, or the same one if there is no other.
fn pull_failed(target: &Target, shard: &Rc<Shard>, object: &HObject, osd: i32) {
    tracing::warn!(pgid = %shard.pgid, %object, osd, "an object is not there");
    let (generation, shard) = (shard.copying.generation.get(), shard.clone());
    let object = object.clone();
    target.spawn(Class::Background, move |target| async move {
        sleep(RETRY).await;
        if shard.copying.generation.get() == generation
            && shard.copying.pulls.borrow_mut().remove(&object).is_some()
        {
            drive::input(&target, &shard, |machine| machine.recovery_failed(&object, osd));
        }
        Ok(())
    });
}

/// Somebody wants an object.
pub fn take_pull(target: &Target, from: i32, incoming: Received) {
    let Ok(asked) = ObjectPull::from_raw(&incoming.raw) else {
        return tracing::error!(from, "a pull does not decode");
    };
    let Some(shard) = current(target, asked.spgid.pgid, asked.map_epoch) else {
        return;
    };
    let generation = shard.copying.generation.get();
    target.spawn(Class::Background, move |target| async move {
        let (object, need) = (&asked.object, asked.need);
        let done = send_object(&target, &shard, generation, from, object, need).await;
        if let Err(e) = &done {
            let reply = (e.errno(), 0, true);
            answer(&target, &shard, from, (object, need), reply);
        }
        stop_if_stopped(done)
    });
}

fn answer(
    target: &Target,
    shard: &Shard,
    to: i32,
    (object, version): (&HObject, EVersion),
    (result, part, last): (i32, u32, bool),
) {
    let (map_epoch, min_epoch) = epochs(shard);
    let object = object.clone();
    let spgid = shard.pgid;
    let reply =
        ObjectPushReply { spgid, map_epoch, min_epoch, object, version, part, last, result };
    if let Err(e) = target.peers().send(target, to, reply.to_raw(0, F)) {
        tracing::debug!(pgid = %shard.pgid, to, "a push is not answered: {e}");
    }
}

// --- what comes in

/// A part of an object.
pub fn take_push(target: &Target, from: i32, incoming: Received) {
    let Ok(push) = ObjectPush::from_raw(&incoming.raw) else {
        return tracing::error!(from, "a push does not decode");
    };
    let Some(shard) = current(target, push.spgid.pgid, push.map_epoch) else {
        return;
    };
    let wanted = {
        let machine = shard.machine.borrow();
        match machine.is_primary() {
            true => shard.copying.pulls.borrow().get(&push.object) == Some(&from),
            false => machine.mapping().acting_primary == from,
        }
    };
    if !wanted {
        return tracing::debug!(pgid = %shard.pgid, from, "a push that nobody waits for");
    }
    let generation = shard.copying.generation.get();
    target.spawn(Class::Background, move |target| async move {
        let done = store_part(&target, &shard, generation, &push).await;
        if shard.copying.generation.get() == generation {
            stored(&target, &shard, from, &push, &done);
        }
        drop(incoming);
        stop_if_stopped(done.map(|_| true))
    });
}

/// Stores a part; with the last one the object is here, at this version.
async fn store_part(
    target: &Target,
    shard: &Shard,
    generation: u64,
    push: &ObjectPush,
) -> Result<Added, CopyError> {
    let key = ObjectKey(key_of(shard.cid, &push.object));
    if !is_wanted(shard, generation, push) {
        return Err(CopyError::Gone);
    }
    if push.version == NOTHING {
        let delete = shard.machine.borrow().missing().get(&push.object).is_some_and(|m| m.delete);
        if shard.machine.borrow().is_primary() && !delete {
            return Err(CopyError::Gone);
        }
        copies::remove(target.store(), shard.cid, &key).await?;
        return Ok(Added::Whole(NOTHING));
    }
    let known = shard.copying.incoming.borrow_mut().remove(&push.object);
    let mut incoming = match known {
        Some(incoming) if push.part > 0 => incoming,
        _ => Incoming::new(target.store(), shard.cid, &key),
    };
    let part = Part { number: push.part, last: push.last, data: push.data.clone() };
    let bytes = part.data.len();
    let epoch = || is_wanted(shard, generation, push).then(|| shard.state.borrow().last_epoch);
    let added = incoming.add(part, epoch).await?;
    if shard.machine.borrow().is_primary() {
        shard.copying.count(0, bytes);
    }
    if added == Added::Part && shard.copying.generation.get() == generation {
        shard.copying.incoming.borrow_mut().insert(push.object.clone(), incoming);
    }
    Ok(added)
}

/// Whether this copy still lacks the object: a late push must not replace what was written since.
fn is_wanted(shard: &Shard, generation: u64, push: &ObjectPush) -> bool {
    let machine = shard.machine.borrow();
    let missing = machine.missing().get(&push.object);
    let wanted = match (machine.is_primary(), missing) {
        (true, Some(item)) => machine.is_pulling(&push.object, item.need),
        (true, None) => false,
        (false, missing) => missing.is_some() || push.object > machine.info().last_backfill,
    };
    wanted && !shard.is_held() && shard.copying.generation.get() == generation
}

fn stored(
    target: &Target,
    shard: &Rc<Shard>,
    from: i32,
    push: &ObjectPush,
    done: &Result<Added, CopyError>,
) {
    let object = &push.object;
    // Another source may have been asked since.
    let waits = !shard.machine.borrow().is_primary()
        || shard.copying.pulls.borrow().get(object) == Some(&from);
    if let Ok(Added::Whole(version)) = done
        && waits
    {
        drive::input(target, shard, |machine| {
            if machine.is_primary() {
                shard.copying.count(1, 0);
                let need = machine.missing().get(object).map(|item| item.need);
                let version = if *version == NOTHING { need.unwrap_or(NOTHING) } else { *version };
                machine.pulled(object, version);
            } else {
                machine.got_push(object);
            }
            machine.check_progress();
        });
        shard.copying.pulls.borrow_mut().remove(object);
        shard.progress.notify_all();
        go_on(target, shard);
    }
    let result = done.as_ref().map_or_else(CopyError::errno, |_| 0);
    if result < 0 && shard.copying.pulls.borrow().contains_key(object) {
        pull_failed(target, shard, object, from);
    }
    answer(target, shard, from, (object, push.version), (result, push.part, push.last));
}

// --- backfill

/// Lists the next objects here and there.
fn compare(target: &Target, shard: &Rc<Shard>, osd: i32, after: HObject) {
    let (generation, shard) = (shard.copying.generation.get(), shard.clone());
    target.spawn(Class::Background, move |target| async move {
        let theirs = scan(&target, &shard, generation, osd, &after).await;
        if theirs.as_ref().is_none_or(|theirs| theirs.result != 0) {
            sleep(RETRY).await;
        }
        let max = SCAN_MAX as usize;
        let ours = copies::list_objects(target.store(), shard.cid, &after, max).await?;
        if shard.copying.generation.get() != generation {
            return Ok(());
        }
        drive::input(&target, &shard, |machine| match theirs {
            Some(theirs) if theirs.result == 0 => {
                let (ours, upto) = ours;
                let upto = upto.min(theirs.upto);
                let within = |list: Vec<(HObject, EVersion)>| {
                    list.into_iter().filter(|(object, _)| *object <= upto).collect()
                };
                let (ours, theirs) = (within(ours), within(theirs.objects));
                machine.backfill_compared(osd, upto, &ours, &theirs);
                machine.check_progress();
            }
            _ => machine.backfill_scan_failed(osd),
        });
        Ok(())
    });
}

async fn scan(
    target: &Target,
    shard: &Shard,
    generation: u64,
    osd: i32,
    after: &HObject,
) -> Option<ObjectScanReply> {
    let copying = &shard.copying;
    let tid = copying.last_scan.get() + 1;
    copying.last_scan.set(tid);
    let (map_epoch, min_epoch) = epochs(shard);
    let (spgid, after, max) = (shard.pgid, after.clone(), SCAN_MAX);
    let ask = ObjectScan { spgid, map_epoch, min_epoch, tid, after, max };
    target.peers().send(target, osd, ask.to_raw(0, F)).ok()?;
    loop {
        if let Some(reply) = copying.scans.borrow_mut().remove(&tid) {
            return Some(reply);
        }
        if !goes_on(target, shard, generation, osd) {
            return None;
        }
        copying.arrived.notified().await;
    }
}

/// A primary wants to know what is here.
pub fn take_scan(target: &Target, from: i32, incoming: Received) {
    let Ok(asked) = ObjectScan::from_raw(&incoming.raw) else {
        return tracing::error!(from, "a scan does not decode");
    };
    let Some(shard) = current(target, asked.spgid.pgid, asked.map_epoch) else {
        return;
    };
    target.spawn(Class::Background, move |target| async move {
        let max = asked.max.min(SCAN_MAX) as usize;
        let listed = copies::list_objects(target.store(), shard.cid, &asked.after, max).await?;
        let (map_epoch, min_epoch) = epochs(&shard);
        let (objects, upto) = listed;
        let (spgid, tid) = (shard.pgid, asked.tid);
        let reply = ObjectScanReply { spgid, map_epoch, min_epoch, tid, upto, objects, result: 0 };
        let _ = target.peers().send(&target, from, reply.to_raw(0, F));
        Ok(())
    });
}

/// What a backfill target has.
pub fn take_scan_reply(target: &Target, from: i32, incoming: Received) {
    let Ok(reply) = ObjectScanReply::from_raw(&incoming.raw) else {
        return tracing::error!(from, "the answer to a scan does not decode");
    };
    if let Some(shard) = current(target, reply.spgid.pgid, reply.map_epoch) {
        shard.copying.scans.borrow_mut().insert(reply.tid, reply);
        shard.copying.arrived.notify_all();
    }
}
