//! Does what the machines of shards want done, and tells them of messages, commits and the time.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use spirula_maps::pool_flags;
use spirula_msgr::on_xstream::Incoming;
use spirula_pg::{Action, PeerMessage, Peering, Slot};
use spirula_store::StoreError;
use spirula_vos::StageError;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::osd::OsdPgTemp;
use spirula_wire::types::{SnapId, SpgId, UTime};
use spirula_wire::{Features, Message as _};
use spirula_xstream::{Class, now};

use super::{Shard, recover, slots, stored};
use crate::boot::pg_created_message;
use crate::reshape;
use crate::stats::StatSum;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;
/// Messages that may wait for a map.
const EARLY_MAX: usize = 10_000;

/// Begins a task in the present turn, so that what it does before its first wait is in order.
pub fn begin(target: &Target, task: impl Future<Output = Result<(), TargetError>> + 'static) {
    let mut task = Box::pin(task);
    // It looks again at once when it is spawned, so that no wake-up is lost on this waker.
    let mut cx = Context::from_waker(Waker::noop());
    match task.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(Ok(())) => {}
        std::task::Poll::Ready(Err(e)) => target.fail(e),
        std::task::Poll::Pending => target.spawn(Class::Client, |_| task),
    }
}

/// Does what the machine wants done, now or behind what is being done already.
pub fn drive(target: &Target, shard: &Rc<Shard>) {
    shard.note_state();
    if shard.held.get() || shard.driving.replace(true) {
        return;
    }
    let (me, of) = (target.clone(), shard.clone());
    begin(target, async move {
        let done = run(&me, &of).await;
        of.driving.set(false);
        rearm(&me, &of);
        done
    });
}

async fn run(target: &Target, shard: &Rc<Shard>) -> Result<(), TargetError> {
    loop {
        let action = shard.machine.borrow_mut().poll();
        match action {
            Some(action) => act(target, shard, action).await?,
            None => return Ok(()),
        }
        if shard.held.get() {
            return Ok(());
        }
    }
}

async fn act(target: &Target, shard: &Rc<Shard>, action: Action) -> Result<(), TargetError> {
    let pgid = shard.pgid.pgid;
    tracing::trace!(%pgid, ?action);
    match action {
        Action::Send { to, message } => {
            let last = shard.local.last();
            shard.outbox.borrow_mut().push_back((last, to, message.to_raw(F)));
            flush(target, shard);
        }
        // The PG of the interval was replaced when the map came.
        Action::NewInterval => {
            shard.copying.cancel();
            shard.scrub.cancel();
            shard.progress.notify_all();
        }
        Action::Rewind(rewind) => shard.rewinds.borrow_mut().push(rewind),
        Action::Persist { log } => persist(target, shard, log).await?,
        Action::AwaitCommit(number) => {
            let (target, shard) = (target.clone(), shard.clone());
            let last = shard.local.last();
            target.clone().spawn(Class::Client, |_| async move {
                shard.local.published(last).await?;
                input(&target, &shard, |machine| machine.committed(number, now()));
                Ok(())
            });
        }
        Action::WantUpThru(epoch) => target.want_up_thru(epoch),
        Action::WantPgTemp(osds) => want_pg_temp(target, shard.pgid, osds),
        Action::Activated => activated(target, shard).await?,
        Action::Clean => {
            // Now nothing is missing that would not be counted.
            let pg = target.pgs().get(pgid).filter(|pg| pg.active.get());
            pg.iter().for_each(|pg| reshape::recount_meanwhile(target, pg));
            target.report_now();
        }
        Action::LocalReserve { priority, .. } => slots::want(target, shard, Slot::Local, priority),
        Action::RemoteReserve { priority, .. } => {
            slots::want(target, shard, Slot::Remote, priority)
        }
        Action::CancelLocal => slots::give_back(target, shard, Slot::Local),
        Action::CancelRemote => slots::give_back(target, shard, Slot::Remote),
        Action::Remove => {
            tracing::info!(%pgid, "this copy of the PG is of no use any more");
            shard.hold();
            super::follow::remove(target, shard.clone());
        }
    }
    Ok(())
}

/// Requests may run, once the lease says so.
async fn activated(target: &Target, shard: &Rc<Shard>) -> Result<(), TargetError> {
    let pgid = shard.pgid.pgid;
    let Some(pg) = target.pgs().get(pgid).filter(|pg| Rc::ptr_eq(&pg.shard, shard)) else {
        return Ok(());
    };
    let alone = shard.machine.borrow().members().is_empty();
    if !shard.state.borrow().counted && alone {
        reshape::recount(target, &pg).await?;
    }
    reshape::note_pg_num(target, &pg).await?;
    if !target.pgs().is_current(&pg) || !shard.machine.borrow().is_peered() {
        return Ok(());
    }
    if target.map().pool(pgid.pool).is_some_and(|p| p.has_flag(pool_flags::CREATING)) {
        target.mon().send(target, pg_created_message(pgid));
    }
    shard.machine.borrow_mut().begin_scrub_stamps(UTime::from(spirula_xstream::wall_now()));
    if shard.machine.borrow().mapping().is_writeable() {
        shard.begin_interval();
        pg.activate();
        crate::route::serves(target, &pg);
    }
    recover::go_on(target, shard);
    target.report_now();
    Ok(())
}

/// Stores what the machine knows, in the shard's order. It is put together anew after each wait, since
/// writes go on meanwhile.
async fn persist(target: &Target, shard: &Rc<Shard>, log: bool) -> Result<(), TargetError> {
    let store = target.store();
    let commit = loop {
        let before = shard.state.borrow().saved();
        match store.submit(&stored::persist(target, shard, log)) {
            Ok(commit) => break commit,
            Err(StageError::Missing(pages)) => {
                shard.state.borrow_mut().restore(before);
                store.load(pages).await?;
            }
            // Its pool has gone.
            Err(StageError::NoContainer(_)) if shard.held.get() => return Ok(()),
            Err(e) => return Err(TargetError::Peering { pgid: shard.pgid, source: e }),
        }
        if shard.held.get() {
            return Ok(());
        }
    };
    shard.state.borrow_mut().stored = true;
    shard.rewinds.borrow_mut().clear();
    let ticket = shard.local.submitted();
    let (me, of) = (target.clone(), shard.clone());
    begin(target, async move {
        let done: Result<(), StoreError> = commit.await;
        if let Err(e) = done {
            of.local.fail();
            return Err(e.into());
        }
        of.local.durable(ticket);
        flush(&me, &of);
        Ok(())
    });
    Ok(())
}

/// Sends what need not wait any more.
pub fn flush(target: &Target, shard: &Rc<Shard>) {
    loop {
        let front = {
            let mut outbox = shard.outbox.borrow_mut();
            let ready = outbox.front().is_some_and(|(after, ..)| shard.local.is_published(*after));
            if ready { outbox.pop_front() } else { None }
        };
        let Some((_, to, message)) = front else {
            return;
        };
        if let Err(e) = target.peers().send(target, to, message) {
            tracing::debug!(pgid = %shard.pgid, to, "not sent: {e}");
        }
    }
}

fn want_pg_temp(target: &Target, pgid: SpgId, osds: Vec<i32>) {
    let map_epoch = target.epoch();
    let pg_temp = [(pgid.pgid, osds)].into();
    let message =
        OsdPgTemp { paxos: Paxos::at(map_epoch.into()), map_epoch, pg_temp, forced: false };
    target.mon().send(target, message.to_raw(0, F));
}

/// Says again to a new monitor session what machines want of it.
pub fn mon_connected(target: &Target) {
    for shard in target.shards().all() {
        let wants = shard.machine.borrow().wants();
        for want in wants {
            match want {
                Action::WantUpThru(epoch) => target.want_up_thru(epoch),
                Action::WantPgTemp(osds) => want_pg_temp(target, shard.pgid, osds),
                _ => {}
            }
        }
    }
}

/// A message of another OSD about PGs.
pub fn take(target: &Target, osd: i32, incoming: Incoming) {
    let Some(message) = PeerMessage::from_raw(&incoming.raw) else {
        tracing::warn!(osd, "message {} of a peer does not decode", incoming.raw.header.type_);
        return;
    };
    drop(incoming);
    receive(target, osd, message);
}

/// Tells the machines of the PGs that it is about.
pub fn receive(target: &Target, osd: i32, message: PeerMessage) {
    for pgid in message.pgids() {
        let shard = target.shards().get(pgid.pgid);
        match shard.or_else(|| learn(target, osd, pgid, &message)) {
            Some(shard) => tell(target, &shard, osd, message.clone()),
            None => tracing::debug!(osd, %pgid, "a message about a PG that is not here"),
        }
    }
}

fn tell(target: &Target, shard: &Rc<Shard>, osd: i32, message: PeerMessage) {
    if shard.held.get() {
        shard.backlog.borrow_mut().push((osd, message));
        return;
    }
    tracing::trace!(pgid = %shard.pgid, osd, ?message);
    if let Some(info) = message.info() {
        shard.state.borrow_mut().heard_epoch(nanos(info.stats.last_fresh));
    }
    input(target, shard, |machine| machine.handle(osd, message, now()));
}

/// Copies tell each other the epochs of their stores in a time of their statistics.
fn nanos(time: UTime) -> u64 {
    u64::from(time.sec) * 1_000_000_000 + u64::from(time.nsec)
}

fn time(nanos: u64) -> UTime {
    let sec = u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX);
    UTime { sec, nsec: (nanos % 1_000_000_000) as u32 }
}

/// Tells the machine of something. It knows the counters before, and may have learned others.
pub fn input(target: &Target, shard: &Rc<Shard>, tell: impl FnOnce(&mut Peering)) {
    {
        let (mut machine, mut state) = (shard.machine.borrow_mut(), shard.state.borrow_mut());
        let purged = state.purged.iter().map(|(start, len)| (SnapId(start), len)).collect();
        machine.set_counters(state.stats.to_ceph(), state.counted, time(state.last_epoch));
        machine.set_purged_snaps(purged);
        tell(&mut machine);
        if let Some(newest) = machine.log().entries().next_back() {
            state.heard_epoch(newest.store_epoch().unwrap_or(0));
        }
        let stats = &machine.info().stats;
        (state.stats, state.counted) = (StatSum::from(&stats.stats.sum), !stats.stats_invalid);
        state.purged = stored::purged_of(machine.info());
    }
    tracing::debug!("{shard:?}");
    drive(target, shard);
    recover::go_on(target, shard);
    if !shard.serving.get() && shard.may_serve() {
        shard.serving.set(true);
        target.pg_became_active();
    }
}

/// The shard is no longer held: what came meanwhile is looked at.
pub fn release(target: &Target, shard: &Rc<Shard>) {
    shard.held.set(false);
    input(target, shard, |machine| machine.activate_map(now()));
    for (osd, message) in shard.backlog.take() {
        receive(target, osd, message);
    }
}

/// A PG that is not here: the message makes a shard, is answered, or waits.
fn learn(target: &Target, osd: i32, pgid: SpgId, message: &PeerMessage) -> Option<Rc<Shard>> {
    let map = target.map();
    if message.epoch_sent() > map.epoch {
        let mut early = target.shards().early.borrow_mut();
        if early.len() < EARLY_MAX {
            early.push((osd, message.clone()));
        }
        return None;
    }
    if let Some(answer) = message.answer_without_copy(map.epoch) {
        if let Err(e) = target.peers().send(target, osd, answer.to_raw(F)) {
            tracing::debug!(%pgid, osd, "not answered: {e}");
        }
        return None;
    }
    let makes =
        matches!(message, PeerMessage::Notify(_) | PeerMessage::Log(_) | PeerMessage::Info(_));
    if !makes || map.pool(pgid.pgid.pool).is_none_or(|pool| pgid.pgid.seed >= pool.pg_num) {
        return None;
    }
    let machine = super::follow::unknown_since(target, pgid, message.epoch_sent());
    Some(super::follow::add(target, pgid, machine))
}

/// A new map is here: what waited for one is looked at again.
pub fn look_again(target: &Target) {
    let epoch = target.epoch();
    let early: Vec<_> = {
        let mut all = target.shards().early.borrow_mut();
        let (now, later) = all.drain(..).partition(|(_, m)| m.epoch_sent() <= epoch);
        *all = later;
        now
    };
    early.into_iter().for_each(|(osd, message)| receive(target, osd, message));
}

/// Lets time pass for the machines, for ever.
pub async fn run_timer(target: Target) -> Result<(), TargetError> {
    use futures_util::future::select;
    loop {
        let stirred = pin!(target.shards().stirred.notified());
        let shards = target.shards();
        let due = shards.all().iter().filter(|s| !s.held.get()).filter_map(|s| next(s)).min();
        shards.armed.set(due);
        match due {
            Some(at) => {
                select(pin!(spirula_xstream::sleep_until(at)), stirred).await;
            }
            None => stirred.await,
        }
        for shard in target.shards().all() {
            if !shard.held.get() && next(&shard).is_some_and(|at| at <= now()) {
                tick(&target, &shard);
            }
        }
    }
}

/// The machine may have a deadline that it did not have.
pub fn rearm(target: &Target, shard: &Shard) {
    let (next, armed) = (next(shard), target.shards().armed.get());
    if next.is_some_and(|at| armed.is_none_or(|armed| at < armed)) {
        target.shards().armed.set(next);
        target.shards().stirred.notify_all();
    }
}

fn next(shard: &Shard) -> Option<std::time::Duration> {
    shard.machine.borrow().next_tick()
}

fn tick(target: &Target, shard: &Rc<Shard>) {
    input(target, shard, |machine| machine.tick(now()));
}
