//! `pool_op`: pools and snapshots by message, as librados asks for them.

use spirula_auth::caps::OsdCap;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mon::{PoolOp, PoolOpReply, pool_op};
use spirula_wire::types::SnapId;
use spirula_wire::{DecodeError, Message, RawMessage};

use super::{F, Handled, Service, Session, SessionId};
use crate::Now;
use crate::command::{
    Context, NewPool, Refusal, create_pool, create_selfmanaged, create_snap, errno, refuse,
    remove_pool, remove_selfmanaged, remove_snap,
};
use crate::state::Change;

/// What capabilities call the handling of snapshots that clients manage.
const SNAP_COMMAND: &str = "osd pool op unmanaged-snap";

/// What an operation changes, and the id of the snapshot it made.
type Done = (Vec<Change>, Option<SnapId>);

impl Service {
    pub(super) fn pool_op(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        let request = PoolOp::from_raw(raw)?;
        let outcome = self.pool_op_changes(now, id, &request);
        let epoch = self.state.osd.epoch();
        let reply = |code: i32, epoch: u32| PoolOpReply {
            paxos: Paxos::at(epoch.into()),
            fsid: self.state.fsid,
            reply_code: code,
            epoch,
            response_data: None,
        };
        match outcome {
            Ok((changes, _)) if changes.is_empty() => {
                self.reply(id, raw, &reply(0, epoch));
                Ok(Handled::Done)
            }
            Ok((changes, snap)) => {
                let reply = reply(0, epoch + 1);
                let reply = snap.map_or(reply.clone(), |snap| reply.with_snap(snap));
                Ok(Handled::Propose(changes, vec![(id, reply.to_raw(raw.header.tid, F))]))
            }
            Err(refusal) => {
                tracing::debug!(op = request.op, text = refusal.text, "pool_op refused");
                self.reply(id, raw, &reply(-refusal.errno, epoch));
                Ok(Handled::Done)
            }
        }
    }

    fn pool_op_changes(
        &mut self,
        now: Now,
        id: SessionId,
        request: &PoolOp,
    ) -> Result<Done, Refusal> {
        let pool = i64::from(request.pool);
        let of_client =
            matches!(request.op, pool_op::CREATE_UNMANAGED_SNAP | pool_op::DELETE_UNMANAGED_SNAP);
        let may = self.sessions.get(&id).is_some_and(|session| match of_client {
            true => self.may_manage_snaps(session, pool),
            false => session.caps.may("osd", "w"),
        });
        if !may {
            return refuse(errno::EPERM, "no permission to write at the osd service");
        }
        if request.fsid != self.state.fsid {
            return refuse(errno::EINVAL, "another cluster");
        }
        let name = request.name.as_str();
        self.with_context(now, |ctx| {
            let snap = perform(ctx, request.op, pool, name, request.snapid.0)?;
            Ok((std::mem::take(&mut ctx.changes), snap))
        })
    }

    /// Clients whose capabilities let them write at the OSDs may have snapshot ids, without any for
    /// the monitor but those to read.
    fn may_manage_snaps(&self, session: &Session, pool: i64) -> bool {
        let pool_name = self.osdmap().pool_name(pool);
        let args = pool_name.map(|name| ("poolname".to_owned(), name.to_owned()));
        let args = args.into_iter().collect();
        if session.caps.may_command("osd", SNAP_COMMAND, &args, "w") {
            return true;
        }
        let caps = self.state.auth.get(session.name()).and_then(|auth| auth.caps.get("osd"));
        caps.and_then(|text| OsdCap::parse(text).ok())
            .is_some_and(|caps| caps.may_manage_snaps(pool_name))
    }
}

/// Errors and what is none (a pool that is there, a snapshot that is gone) are Ceph's.
fn perform(
    ctx: &mut Context<'_>,
    op: u32,
    pool: i64,
    name: &str,
    snap: u64,
) -> Result<Option<SnapId>, Refusal> {
    match op {
        pool_op::CREATE => create_pool(ctx, &NewPool::named(name)).map(drop)?,
        pool_op::DELETE if ctx.state.osd.map().pool(pool).is_none() => {}
        pool_op::DELETE => remove_pool(ctx, pool)?,
        pool_op::CREATE_SNAP => create_snap(ctx, pool, name).map(drop)?,
        pool_op::DELETE_SNAP => remove_snap(ctx, pool, name).map(drop)?,
        pool_op::CREATE_UNMANAGED_SNAP => {
            return create_selfmanaged(ctx, pool).map(|snap| Some(SnapId(snap)));
        }
        pool_op::DELETE_UNMANAGED_SNAP => remove_selfmanaged(ctx, pool, snap)?,
        pool_op::AUID_CHANGE if ctx.state.osd.map().pool(pool).is_none() => {
            return refuse(errno::ENOENT, format!("there is no pool {pool}"));
        }
        pool_op::AUID_CHANGE => return refuse(errno::EOPNOTSUPP, "pools have no owners"),
        other => return refuse(errno::EINVAL, format!("unknown pool operation {other}")),
    }
    Ok(None)
}
