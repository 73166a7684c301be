//! A copy's side of a scrub: slots, maps, and copies that are of no use.

use std::rc::Rc;

use spirula_msgr::on_xstream::Incoming;
use spirula_wire::msg::scrub::{
    ScrubMap, ScrubRepair, ScrubRequest, ScrubReserve, scrub_reserve as word,
};
use spirula_wire::types::PgId;
use spirula_wire::{Features, Message};
use spirula_xstream::Class;

use super::{epochs, map, schedule};
use crate::errno::EIO;
use crate::shard::{Shard, drive};
use crate::target::Target;

const F: Features = Features::PACIFIC;

/// The shard, if the message is of its interval.
fn current(target: &Target, pgid: PgId, epoch: u32) -> Option<Rc<Shard>> {
    let shard = target.shards().get(pgid)?;
    let is_current = !shard.is_held() && shard.machine.borrow().is_current(epoch);
    is_current.then_some(shard)
}

fn follows(shard: &Shard, from: i32) -> bool {
    let machine = shard.machine.borrow();
    !machine.is_primary() && machine.mapping().acting_primary == from
}

pub(super) fn send_reserve(target: &Target, shard: &Shard, to: i32, kind: u8) {
    let (map_epoch, min_epoch) = epochs(shard);
    let message = ScrubReserve { spgid: shard.pgid, map_epoch, min_epoch, kind };
    if let Err(e) = target.peers().send(target, to, message.to_raw(0, F)) {
        tracing::debug!(pgid = %shard.pgid, to, "nothing said about a slot for a scrub: {e}");
    }
}

/// A primary wants a slot or gives it back; or a copy answers.
pub fn take_reserve(target: &Target, from: i32, incoming: Incoming) {
    let Ok(message) = ScrubReserve::from_raw(&incoming.raw) else {
        return tracing::error!(from, "a message about a slot for a scrub does not decode");
    };
    let Some(shard) = current(target, message.spgid.pgid, message.map_epoch) else {
        return;
    };
    match message.kind {
        word::REQUEST if follows(&shard, from) => {
            let grants = shard.scrub.gives_slot.get() || schedule::has_slot(target);
            shard.scrub.gives_slot.set(grants);
            let answer = if grants { word::GRANT } else { word::REJECT };
            send_reserve(target, &shard, from, answer);
        }
        word::RELEASE if follows(&shard, from) => {
            shard.scrub.gives_slot.set(false);
            target.scrubs().stir();
        }
        word::GRANT | word::REJECT if shard.scrub.running.get().is_some() => {
            shard.scrub.grants.borrow_mut().insert(from, message.kind == word::GRANT);
            shard.scrub.arrived.notify_all();
        }
        _ => {}
    }
}

/// The primary wants to know what is here.
pub fn take_request(target: &Target, from: i32, incoming: Incoming) {
    let Ok(asked) = ScrubRequest::from_raw(&incoming.raw) else {
        return tracing::error!(from, "a request of a scrub does not decode");
    };
    let current = current(target, asked.spgid.pgid, asked.map_epoch);
    let Some(shard) = current.filter(|shard| follows(shard, from)) else {
        return;
    };
    target.spawn(Class::Background, move |target| async move {
        let range = (&asked.after, &asked.upto);
        let built = map::build(target.store(), shard.cid, range, asked.deep).await;
        let ((objects, upto), result) = match built {
            Ok(built) => (built, 0),
            Err(e) => {
                tracing::error!(pgid = %shard.pgid, "no answer for a scrub: {e}");
                (Default::default(), -EIO)
            }
        };
        let (map_epoch, min_epoch) = epochs(&shard);
        let (spgid, tid) = (shard.pgid, asked.tid);
        let reply = ScrubMap { spgid, map_epoch, min_epoch, tid, upto, objects, result };
        let _ = target.peers().send(&target, from, reply.to_raw(0, F));
        Ok(())
    });
}

/// What a copy has.
pub fn take_map(target: &Target, from: i32, incoming: Incoming) {
    let Ok(map) = ScrubMap::from_raw(&incoming.raw) else {
        return tracing::error!(from, "what a copy tells a scrub does not decode");
    };
    if let Some(shard) = current(target, map.spgid.pgid, map.map_epoch)
        && shard.scrub.running.get().is_some()
        && map.tid == shard.scrub.last_tid.get()
    {
        shard.scrub.maps.borrow_mut().insert((from, map.tid), map);
        shard.scrub.arrived.notify_all();
    }
}

/// The primary found this copy of an object to be of no use.
pub fn take_repair(target: &Target, from: i32, incoming: Incoming) {
    let Ok(bad) = ScrubRepair::from_raw(&incoming.raw) else {
        return tracing::error!(from, "the word about a bad copy does not decode");
    };
    let Some(shard) = current(target, bad.spgid.pgid, bad.map_epoch) else {
        return;
    };
    tracing::warn!(pgid = %shard.pgid, object = %bad.object, "this copy is bad and is replaced");
    // With what is stored next.
    shard.state.borrow_mut().missing_stored = true;
    drive::input(target, &shard, |machine| {
        machine.found_bad(from, bad.map_epoch, &bad.object, bad.need);
    });
}
