//! Reads at a copy that is not the primary, for clients that asked for that (`balance_reads`,
//! `localize_reads`).
//!
//! Whatever the copy cannot answer as the primary would, the client is sent to the primary for (`-EAGAIN`), as
//! in Ceph: while its lease does not hold, while it lacks the object, and while the object's newest write may not
//! be everywhere.
//!
//! Invariant: what is answered was read in turns in which all that held.

use std::rc::Rc;

use spirula_wire::msg::osd_op::flag;
use spirula_wire::types::{EVersion, HObject, SnapId};
use spirula_xstream::{now, wall_now};

use super::Shard;
use crate::admit::{Admission, Admitted, admit};
use crate::errno::{EAGAIN, EIO};
use crate::front::{OpRequest, Reply};
use crate::pg::Pg;
use crate::plan::Executed;
use crate::read::reply;
use crate::snap::PoolSnaps;
use crate::target::{Target, TargetError};
use crate::write::{Loaded, Served};

/// Who answers a read that any copy may answer.
pub enum Here {
    Copy(Rc<Shard>),
    /// This OSD belongs to the PG and has nothing of it that could be read.
    Nothing,
}

/// What is here of the request's PG, if a copy may answer it and this OSD has one, or shall have.
pub fn copy_for(target: &Target, request: &OpRequest) -> Option<Here> {
    let anywhere = flag::BALANCE_READS | flag::LOCALIZE_READS;
    if !request.msg.has_flag(anywhere) || request.class.writes {
        return None;
    }
    let (map, me) = (target.map(), target.config().osd_id);
    let asked = request.msg.spgid.pgid;
    let pool = map.pool(asked.pool)?;
    let pgid = if asked.seed < pool.pg_num { asked } else { map.raw_pg_to_pg(asked)? };
    let Some(shard) = target.shards().get(pgid).filter(|shard| !shard.is_held()) else {
        // Its primary has not told it of the PG yet.
        let is_member = map.pg_to_up_acting(pgid).acting.contains(&me);
        return is_member.then_some(Here::Nothing);
    };
    let is_member = {
        let machine = shard.machine.borrow();
        let since = machine.info().history.same_interval_since;
        // What was sent before the interval is sent again.
        machine.mapping().is_acting(me) && request.msg.map_epoch >= since
    };
    is_member.then_some(Here::Copy(shard))
}

/// Answers a request at a copy. `None`: it is dropped.
pub async fn serve(
    target: &Target,
    here: Here,
    request: OpRequest,
) -> Result<Option<(OpRequest, Reply)>, TargetError> {
    let Here::Copy(shard) = here else {
        let reply = Reply::refusal(&request, -EAGAIN);
        return Ok(Some((request, reply)));
    };
    let map = target.map();
    // For this request alone: it is never active, so that nothing of a primary's is done.
    let pg = Rc::new(Pg::new(shard.clone()));
    pg.set_snaps(Rc::new(PoolSnaps::of(&map, shard.pgid.pgid.pool)));
    let limits = target.admit_limits();
    let admission = admit(request, &pg, &map, &limits, target.fullness(), wall_now().into());
    let (request, reply) = match admission {
        Admission::Run(admitted) => read(target, &shard, admitted).await?,
        Admission::Refuse(request, errno) => {
            let reply = Reply::refusal(&request, errno);
            (request, Some(reply))
        }
        Admission::PgOps(request) | Admission::Duplicate(request, _) => {
            let reply = Reply::refusal(&request, -EAGAIN);
            (request, Some(reply))
        }
        Admission::Drop(_) => return Ok(None),
    };
    Ok(reply.map(|reply| (request, reply)))
}

async fn read(target: &Target, shard: &Rc<Shard>, admitted: Admitted) -> Served {
    let object = HObject { snap: SnapId::HEAD, ..admitted.request.msg.object() };
    let begun = shard.machine.borrow().info().last_update;
    let class = &admitted.request.class;
    let is_primarys = class.watches || class.notifies;
    let mut loaded = Loaded::lock(target, admitted).await?;
    loop {
        if is_primarys || !may_read(shard, &object, begun) {
            break;
        }
        match loaded.execute(target) {
            Ok(executed) if !is_answer(&executed) => break,
            Ok(executed) => {
                let count = &target.shards().reads_at_copies;
                count.set(count.get() + 1);
                let reply = reply(loaded.request(), loaded.pg(), executed);
                return Ok(loaded.done(Some(reply)));
            }
            Err(need) => loaded.fill(target, need).await?,
        }
    }
    let reply = Reply::refusal(loaded.request(), -EAGAIN);
    Ok(loaded.done(Some(reply)))
}

/// Whether it is as the primary has it, and was when the read began: what is in memory may be from then.
fn may_read(shard: &Shard, object: &HObject, begun: EVersion) -> bool {
    let machine = shard.machine.borrow();
    let log = machine.log();
    !shard.is_held()
        && machine.may_read_here(object, now())
        && log.tail() <= begun
        && !log.after(begun).any(|entry| entry.object == *object)
}

/// Other objects, watches and damage are for the primary.
fn is_answer(executed: &Executed) -> bool {
    executed.errand.is_none() && executed.watching.is_empty() && executed.result != -EIO
}
