//! `pool_op`: pools and snapshots by message, as librados asks for them.

use spirula_wire::msg::Paxos;
use spirula_wire::msg::mon::{PoolOp, PoolOpReply, pool_op};
use spirula_wire::{DecodeError, Message, RawMessage};

use super::{F, Handled, Service, SessionId};
use crate::Now;
use crate::command::{NewPool, Refusal, create_pool, errno, refuse, remove_pool};
use crate::state::Change;

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
            Ok(changes) if changes.is_empty() => {
                self.reply(id, raw, &reply(0, epoch));
                Ok(Handled::Done)
            }
            Ok(changes) => {
                let raw = reply(0, epoch + 1).to_raw(raw.header.tid, F);
                Ok(Handled::Propose(changes, vec![(id, raw)]))
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
    ) -> Result<Vec<Change>, Refusal> {
        let may = self.sessions.get(&id).is_some_and(|s| s.caps.may("osd", "w"));
        if !may {
            return refuse(errno::EPERM, "no permission to write at the osd service");
        }
        if request.fsid != self.state.fsid {
            return refuse(errno::EINVAL, "another cluster");
        }
        let pool = i64::from(request.pool);
        match request.op {
            pool_op::CREATE => self
                .changes_of(now, |ctx| create_pool(ctx, &NewPool::named(&request.name)).map(drop)),
            pool_op::DELETE if self.osdmap().pool(pool).is_none() => Ok(Vec::new()),
            pool_op::DELETE => self.changes_of(now, |ctx| remove_pool(ctx, pool)),
            pool_op::CREATE_SNAP
            | pool_op::DELETE_SNAP
            | pool_op::CREATE_UNMANAGED_SNAP
            | pool_op::DELETE_UNMANAGED_SNAP => {
                refuse(errno::EOPNOTSUPP, "snapshots are not supported yet")
            }
            other => refuse(errno::EINVAL, format!("unknown pool operation {other}")),
        }
    }

    fn changes_of(
        &mut self,
        now: Now,
        body: impl FnOnce(&mut crate::command::Context<'_>) -> Result<(), Refusal>,
    ) -> Result<Vec<Change>, Refusal> {
        self.with_context(now, |ctx| {
            body(ctx)?;
            Ok(std::mem::take(&mut ctx.changes))
        })
    }
}
