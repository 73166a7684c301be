//! Errands of requests about redirects and chunks: the request goes on to the target, or needs something
//! of it first.
//!
//! A request that goes on holds no lock any more: its order is that of the connection it leaves on.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, flag};
use spirula_wire::types::{EntityType, HObject, SnapContext, SnapId};
use spirula_xstream::{Class, timeout};

use crate::admit::Admitted;
use crate::errno::*;
use crate::front::{OpRequest, Reply, Versions};
use crate::object::Chunk;
use crate::pg::Pg;
use crate::plan::Errand;
use crate::proxy::{Asking, Unanswered, object_of};
use crate::remote;
use crate::target::Target;
use crate::write::{Loaded, Served};

/// Redirects that a request may follow. Ceph would follow those of a circle for ever.
const HOPS_MAX: i32 = 8;
/// A reference is taken in this time: its target may be waiting for one at the object that is locked here.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
/// A chunk is read in this time: its target may be reading one of the object that is locked here.
const FILLED_WITHIN: Duration = Duration::from_secs(30);
const CHUNKS_AT_ONCE: usize = 16;
/// Flags that a request keeps on its way.
const KEPT: u32 = flag::RWORDERED
    | flag::ORDERSNAP
    | flag::ENFORCE_SNAPC
    | flag::MAP_SNAP_CLONE
    | flag::RETURNVEC
    | flag::FULL_TRY
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

/// How many manifests led to this request, and its own: an OSD counts them as attempts. The error is
/// positive.
fn hops_of(request: &OpRequest) -> Result<i32, i32> {
    let by_osd = request.session.entity.type_ == EntityType::OSD;
    let hops = if by_osd { request.msg.retry_attempt.max(0) + 1 } else { 0 };
    if hops < HOPS_MAX { Ok(hops) } else { Err(ELOOP) }
}

/// The request as it goes on, with its own snapshot context if it has one, or why it does not (positive).
fn forwarded(request: &OpRequest, context: Option<SnapContext>) -> Result<OsdOpMsg, i32> {
    let msg = &request.msg;
    if request.class.watches || request.class.notifies {
        // Its events would come to this OSD.
        return Err(EOPNOTSUPP);
    }
    let hops = hops_of(request)?;
    let mode = |on: bool, mode| if on { mode } else { 0 };
    let flags = msg.flags & KEPT
        | mode(request.class.reads, flag::READ)
        | mode(request.class.writes, flag::WRITE)
        | flag::ONDISK
        | flag::KNOWN_REDIR
        | flag::REDIRECTED;
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
                let object = HObject { snap: SnapId::HEAD, ..object };
                let source = remote::fetch(target, self.pg(), &object, 0).await;
                self.sources.add((op, source));
            }
            Errand::Fill(chunks) => self.fill_chunks(target, chunks).await,
            Errand::Follow { op } => {
                let pg = self.pg().clone();
                self.sources.follow(target, &pg, op).await;
            }
        }
    }

    /// Learns what the chunks hold, some at a time.
    async fn fill_chunks(&mut self, target: &Target, chunks: Vec<Chunk>) {
        let hops = hops_of(self.request());
        for some in chunks.chunks(CHUNKS_AT_ONCE) {
            let pg = self.pg();
            let reads = some.iter().map(async |chunk| match hops {
                Ok(hops) => read_chunk(target, pg, chunk, hops).await,
                Err(errno) => Err(-errno),
            });
            let contents = join_all(reads).await;
            for (chunk, content) in some.iter().zip(contents) {
                self.sources.fill((chunk.clone(), content));
            }
        }
    }

    /// Tells the targets that have no reference of this object any more.
    pub fn release(&self, target: &Target, released: Vec<HObject>) {
        release(target, self.pg(), &own_object(self.request()), released);
    }
}

/// Tells targets that they have one reference of `own` less, in the background.
pub fn release(target: &Target, pg: &Rc<Pg>, own: &HObject, released: Vec<HObject>) {
    for object in released {
        let (own, pg) = (own.clone(), pg.clone());
        target.spawn(Class::Client, |target| async move {
            if let Err(errno) = count(&target, &pg, own, &object, "chunk_put_ref").await {
                tracing::warn!(%object, errno, "a reference could not be taken back");
            }
            Ok(())
        });
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

/// What a chunk holds; less than its length if the target ends before.
async fn read_chunk(target: &Target, pg: &Pg, chunk: &Chunk, hops: i32) -> Result<Bytes, i32> {
    let args = OpArgs::extent(chunk.offset, chunk.length);
    let msg = OsdOpMsg {
        flags: flag::READ | flag::ONDISK | flag::KNOWN_REDIR,
        ops: vec![OsdOp::new(OpCode::READ, args, Bytes::new())],
        snap: SnapId::HEAD,
        retry_attempt: hops,
        ..OsdOpMsg::default()
    };
    let reading = Asking::begin(target, chunk.target.clone(), msg);
    match timeout(FILLED_WITHIN, pin!(reading.answer(pg))).await {
        Ok(Ok(reply)) if reply.result >= 0 => {
            let pieces = reply.ops.into_iter().flat_map(|op| op.outdata);
            Ok(pieces.collect::<Vec<_>>().concat().into())
        }
        Ok(Ok(reply)) => Err(reply.result),
        Ok(Err(Unanswered::Errno(errno))) => Err(errno),
        Ok(Err(Unanswered::Dropped)) => Err(-EAGAIN),
        Err(_) => Err(-EBUSY),
    }
}
