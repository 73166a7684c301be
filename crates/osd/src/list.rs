//! Operations about a PG: listing its objects.
//!
//! A listing walks a key range; its cursor is the object that comes next, and behind the last one
//! the start of the next PG in hash order.

use std::ops::Bound;

use bytes::Bytes;
use spirula_store::{Store, StoreError};
use spirula_vos::ReadError;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpResult};
use spirula_wire::types::{
    HObject, ListedObject, PgNlsResponse, ScrubList, ScrubListArgs, SnapId, UTime,
};
use spirula_wire::{Decode, Encode, Features, Reader};

use crate::apply::meta_object;
use crate::errno::*;
use crate::filter::Filter;
use crate::front::{OpRequest, Reply, Versions};
use crate::object::{cursor_key, object_of_key, pg_bounds};
use crate::pg::Pg;
use crate::plan::{refusal, untouched_outputs};
use crate::target::{Target, TargetError};

/// Most entries in one answer (`osd_max_pgls`).
const ENTRIES_MAX: u64 = 1024;
/// Most objects in an answer about a scrub.
const SCRUB_ENTRIES_MAX: u64 = 1024;
/// Namespace that stands for all of them.
const ALL_NAMESPACES: &[u8] = &[1];
const F: Features = Features::PACIFIC;

/// Serves a request of PG operations. What it lists may be staged, so it waits for its publish.
pub async fn pg_ops(target: &Target, pg: &Pg, request: &OpRequest) -> Result<Reply, TargetError> {
    let mut outputs = untouched_outputs(&request.msg.ops);
    let mut result = 0;
    for (op, out) in request.msg.ops.iter().zip(&mut outputs) {
        result = match op.code {
            OpCode::PGNLS | OpCode::PGLS | OpCode::PGNLS_FILTER | OpCode::PGLS_FILTER => {
                list(target.store(), pg, request, op, out).await?
            }
            OpCode::SCRUBLS => scrub_errors(pg, request, op, out),
            // No pool keeps hit sets.
            OpCode::PG_HITSET_LS => {
                out.outdata = vec![Vec::<(UTime, UTime)>::new().to_bytes(F).into()];
                0
            }
            code => -refusal(code).unwrap_or(EINVAL),
        };
        if result < 0 {
            break;
        }
    }
    let ticket = pg.publisher.last();
    let (last_update, last_user) = pg.last_versions();
    pg.publisher.published(ticket).await?;
    let versions = Versions::of(last_update, last_user);
    Ok(Reply { result, outputs, versions, data_offset: 0, data_crc: None, executed: true })
}

/// One page: 1 when it is the last of the PG.
async fn list(
    store: &Store,
    pg: &Pg,
    request: &OpRequest,
    op: &OsdOp,
    out: &mut OsdOpResult,
) -> Result<i32, StoreError> {
    let OpArgs::Pgls { count, .. } = op.args else {
        return Ok(-EINVAL);
    };
    let reader = &mut Reader::new(&op.indata);
    let filter = match op.code {
        OpCode::PGNLS_FILTER | OpCode::PGLS_FILTER => match Filter::decode(reader) {
            Ok(filter) => Some(filter),
            Err(errno) => return Ok(-errno),
        },
        _ => None,
    };
    let Ok(cursor) = HObject::decode(reader) else {
        return Ok(-EINVAL);
    };
    if request.msg.snap != SnapId::HEAD {
        return Ok(-EINVAL);
    }
    let pgid = pg.pgid.pgid;
    let (start, end) = pg_bounds(pgid, pg.mapping.borrow().pg_num);
    let new_style = matches!(op.code, OpCode::PGNLS | OpCode::PGNLS_FILTER);
    let outside = !cursor.is_max() && cursor >= end || !cursor.is_min() && cursor < start;
    if new_style && outside {
        return Ok(-EINVAL);
    }
    let max = count.clamp(1, ENTRIES_MAX) as usize;
    let page = Page::scan(store, pg, &cursor, max, filter.as_ref()).await?;
    let nspace = &request.msg.locator.nspace;
    let all = new_style && nspace[..] == *ALL_NAMESPACES;
    let wanted = page.objects.into_iter().filter(|o| all || o.nspace == *nspace);
    let last = page.next.is_none();
    let mut raw = if new_style {
        let entries = wanted.map(|o| ListedObject { nspace: o.nspace, oid: o.oid, locator: o.key });
        let handle = page.next.unwrap_or(end);
        PgNlsResponse { handle, entries: entries.collect() }.to_bytes(F)
    } else {
        let entries: Vec<(Bytes, Bytes)> = wanted.map(|o| (o.oid, o.key)).collect();
        let mut raw = vec![1u8];
        page.next.unwrap_or_else(HObject::max).encode(&mut raw, F);
        entries.encode(&mut raw, F);
        raw
    };
    if filter.is_some() {
        // What the filter itself has to say.
        Bytes::new().encode(&mut raw, F);
    }
    out.outdata = vec![raw.into()];
    Ok(i32::from(last))
}

/// Objects in order, and the one after them.
struct Page {
    objects: Vec<HObject>,
    next: Option<HObject>,
}

impl Page {
    async fn scan(
        store: &Store,
        pg: &Pg,
        cursor: &HObject,
        max: usize,
        filter: Option<&Filter>,
    ) -> Result<Self, StoreError> {
        let (cid, pool, from) = (pg.cid, pg.pgid.pgid.pool, cursor_key(cursor));
        let (keys, next) = store
            .read(|vos| -> Result<_, ReadError> {
                if !vos.container_exists(cid) {
                    return Ok((Vec::new(), None));
                }
                // As in Ceph, a deleted object is listed as long as a snapshot shows it.
                let meta = meta_object(cid);
                let from = match from == meta.0 {
                    true => Bound::Excluded(&from[..]),
                    false => Bound::Included(&from[..]),
                };
                let mut keys = vos.list_objects(cid, from, None, max + 1)?;
                let next = if keys.len() > max { keys.pop() } else { None };
                let mut wanted = Vec::with_capacity(keys.len());
                for key in keys {
                    if filter.map_or(Ok(true), |filter| filter.admits(vos, cid, &key))? {
                        wanted.push(key);
                    }
                }
                Ok((wanted, next))
            })
            .await?;
        let objects = keys.iter().filter_map(|k| object_of_key(pool, &k.0)).collect();
        Ok(Self { objects, next: next.and_then(|k| object_of_key(pool, &k.0)) })
    }
}

/// What the last scrub of the PG found.
fn scrub_errors(pg: &Pg, request: &OpRequest, op: &OsdOp, out: &mut OsdOpResult) -> i32 {
    if request.msg.spgid.pgid != pg.pgid.pgid {
        return -EINVAL;
    }
    let Ok(args) = ScrubListArgs::from_bytes(&op.indata) else {
        return -EINVAL;
    };
    let interval = pg.mapping.borrow().since;
    let is_old = args.interval != 0 && args.interval != interval;
    let values = if is_old { Some(Vec::new()) } else { inconsistent(pg, &args) };
    let result = match &values {
        Some(_) if is_old => -EAGAIN,
        Some(_) => 0,
        None => -ENOENT,
    };
    let values = values.unwrap_or_default();
    out.outdata = vec![ScrubList { interval, values }.to_bytes(F).into()];
    result
}

/// Inconsistent objects behind the one that the client has seen; `None`: no scrub was made yet. A snapset
/// is stored with its object, so none is inconsistent by itself.
fn inconsistent(pg: &Pg, args: &ScrubListArgs) -> Option<Vec<Bytes>> {
    let max = args.max_return.min(SCRUB_ENTRIES_MAX) as usize;
    let (name, (nspace, snap)) = &args.start_after;
    let is_start = |object: &HObject| {
        object.oid == *name && object.nspace == *nspace && object.snap.0 == *snap
    };
    pg.shard.scrub.found(|found| {
        let found = found?;
        if args.get_snapsets != 0 {
            return Some(Vec::new());
        }
        let seen = if name.is_empty() { None } else { found.keys().find(|o| is_start(o)) };
        let from = seen.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = found.range::<HObject, _>((from, Bound::Unbounded)).take(max);
        Some(rest.map(|(_, object)| object.to_bytes(F).into()).collect())
    })
}
