//! Errands of requests about redirects: the request goes on to the target, or needs something of it
//! first.
//!
//! A request that goes on holds no lock any more: its order is that of the connection it leaves on.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, flag};
use spirula_wire::types::{EntityType, HObject, SnapContext, SnapId, SpgId};
use spirula_xstream::{Class, timeout};

use crate::admit::Admitted;
use crate::errno::*;
use crate::front::{OpRequest, Reply, Versions};
use crate::pg::Pg;
use crate::plan::{Errand, Source};
use crate::proxy::{Asking, Place, Unanswered, locator_of, object_of};
use crate::remote::Remote;
use crate::target::Target;
use crate::write::{Loaded, Served};

/// Redirects that a request may follow. Ceph would follow those of a circle for ever.
const HOPS_MAX: i32 = 8;
/// A reference is taken in this time: its target may be waiting for one at the object that is locked here.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
/// Flags that a request keeps on its way.
const KEPT: u32 = flag::RWORDERED
    | flag::ORDERSNAP
    | flag::ENFORCE_SNAPC
    | flag::MAP_SNAP_CLONE
    | flag::RETURNVEC
    | flag::FULL_FORCE;

/// Lets `object` answer instead.
pub async fn forward(target: &Target, loaded: Loaded, object: HObject) -> Served {
    let Loaded { admitted, held, sources, .. } = loaded;
    let Admitted { request, pg, snaps, .. } = admitted;
    let msg = match forwarded(&request, snaps.own) {
        Ok(msg) => msg,
        Err(errno) => {
            let reply = Reply::refusal(&request, -errno);
            return Ok((request, Some(reply)));
        }
    };
    let asking = Asking::begin(target, object, msg);
    // The other object's request may need the same locks.
    drop((held, sources));
    let reply = match asking.answer(&pg).await {
        Ok(reply) => {
            let versions = match reply.result {
                result if result >= 0 || request.class.writes => {
                    Versions::of(Versions::default().replay, reply.user_version)
                }
                result if result == -ENOENT => {
                    let (last_update, last_user) = pg.last_versions();
                    Versions::default().absent(last_update, last_user)
                }
                _ => Versions::default(),
            };
            Some(Reply {
                result: reply.result,
                outputs: reply.ops,
                versions,
                data_offset: 0,
                data_crc: None,
                executed: true,
            })
        }
        Err(Unanswered::Errno(errno)) => Some(Reply::refusal(&request, errno)),
        Err(Unanswered::Dropped) => None,
    };
    Ok((request, reply))
}

/// The request as it goes on, with its own snapshot context if it has one, or why it does not (positive).
/// An OSD counts the redirects before it as attempts.
fn forwarded(request: &OpRequest, context: Option<SnapContext>) -> Result<OsdOpMsg, i32> {
    let msg = &request.msg;
    if request.class.watches || request.class.notifies {
        // Its events would come to this OSD.
        return Err(EOPNOTSUPP);
    }
    let by_osd = request.session.entity.type_ == EntityType::OSD;
    let hops = if by_osd { msg.retry_attempt.max(0) + 1 } else { 0 };
    let mode = |on: bool, mode| if on { mode } else { 0 };
    let flags = msg.flags & KEPT
        | mode(request.class.reads, flag::READ)
        | mode(request.class.writes, flag::WRITE)
        | flag::ONDISK
        | flag::KNOWN_REDIR
        | flag::REDIRECTED
        | flag::FULL_TRY;
    if hops >= HOPS_MAX {
        return Err(ELOOP);
    }
    Ok(OsdOpMsg {
        flags,
        reqid: request.reqid,
        mtime: msg.mtime,
        ops: msg.ops.clone(),
        snap: msg.snap,
        snapc: context.unwrap_or_else(|| msg.snapc.clone()),
        retry_attempt: hops,
        ..OsdOpMsg::default()
    })
}

impl Loaded {
    /// Does what the plan needs; the object stays locked.
    pub async fn run_errand(&mut self, target: &Target, errand: Errand) {
        match errand {
            Errand::Forward(_) => {}
            Errand::Reach { op, name, locator, snap, counted } => {
                let found = object_of(&target.map(), locator, name).ok_or(-ENOENT);
                let own = own_object(self.request());
                let found = match found {
                    Ok(object) if object == own => Err(-EINVAL),
                    Ok(object) if counted => {
                        let object = HObject { snap, ..object };
                        let counting = count(target, self.pg(), own, &object, "chunk_get_ref");
                        let counted = timeout(COUNTED_WITHIN, pin!(counting)).await;
                        counted.unwrap_or(Err(-EBUSY)).map(|()| object)
                    }
                    found => found.map(|object| HObject { snap, ..object }),
                };
                self.reached.push((op, found));
            }
            Errand::Fetch { op, target: object } => {
                let source = fetch(target, object).await;
                self.sources.add((op, source));
            }
        }
    }

    /// Tells the targets that have no reference of this object any more, in the background.
    pub fn release(&self, target: &Target, released: Vec<HObject>) {
        for object in released {
            let (own, pg) = (own_object(self.request()), self.pg().clone());
            target.spawn(Class::Client, |target| async move {
                if let Err(errno) = count(&target, &pg, own, &object, "chunk_put_ref").await {
                    tracing::warn!(%object, errno, "a reference could not be taken back");
                }
                Ok(())
            });
        }
    }
}

/// The object that a request names, as others refer to it.
fn own_object(request: &OpRequest) -> HObject {
    HObject { snap: SnapId::HEAD, ..request.msg.object() }
}

/// Has `object` count a reference of `own` by a method of class `cas`.
async fn count(
    target: &Target,
    pg: &Pg,
    own: HObject,
    object: &HObject,
    method: &str,
) -> Result<(), i32> {
    let input = spirula_cls::chunk_reference(own);
    let args = OpArgs::Cls {
        class_len: CLASS.len() as u8,
        method_len: method.len() as u8,
        argc: 0,
        indata_len: input.len() as u32,
    };
    let indata: Bytes = [CLASS.as_bytes(), method.as_bytes(), &input].concat().into();
    let msg = OsdOpMsg {
        flags: flag::READ | flag::WRITE | flag::RWORDERED | flag::ONDISK | flag::FULL_TRY,
        ops: vec![OsdOp::new(OpCode::CALL, args, indata)],
        snap: SnapId::HEAD,
        ..OsdOpMsg::default()
    };
    match Asking::begin(target, object.clone(), msg).answer(pg).await {
        Ok(reply) if reply.result >= 0 => Ok(()),
        Ok(reply) => Err(reply.result),
        Err(Unanswered::Errno(errno)) => Err(errno),
        Err(Unanswered::Dropped) => Err(-EAGAIN),
    }
}

const CLASS: &str = "cas";

async fn fetch(target: &Target, object: HObject) -> Result<Source, i32> {
    let place = Place::of(&target.map(), &object)?.ok_or(-EAGAIN)?;
    let remote = Remote {
        addr: place.addr,
        pgid: SpgId::whole(place.pgid),
        hash: object.hash,
        locator: locator_of(&object),
        name: object.oid,
        snap: SnapId::HEAD,
    };
    remote.fetch(target, 0).await
}
