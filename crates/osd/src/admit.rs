//! Whether a request may run: Ceph's checks, in Ceph's order, before anything is loaded.

use std::rc::Rc;

use spirula_auth::caps::{ClassCall, OsdAccess};
use spirula_maps::{OsdMap, PgPool, pool_flags};
use spirula_vos::ObjectKey;
use spirula_wire::msg::ops::OpCode;
use spirula_wire::msg::osd_op::flag;
use spirula_wire::types::{SnapId, UTime};

use crate::class::{Call, calls};
use crate::errno::*;
use crate::front::OpRequest;
use crate::full::Fullness;
use crate::object::{object_key, pg_contains};
use crate::pg::Pg;
use crate::pg::locks::Mode;
use crate::snap::SnapScope;

/// Limits of a request (`osd_max_object_name_len` and others).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmitLimits {
    pub object_name_len_max: usize,
    pub namespace_len_max: usize,
    pub write_size_max: u64,
}

impl Default for AdmitLimits {
    fn default() -> Self {
        Self { object_name_len_max: 2048, namespace_len_max: 256, write_size_max: 90 << 20 }
    }
}

/// A request that may run, and how it uses its object.
#[derive(Debug)]
pub struct Admitted {
    pub request: OpRequest,
    pub pg: Rc<Pg>,
    pub oid: ObjectKey,
    pub mode: Mode,
    pub snaps: SnapScope,
    /// What a growing write fails with because the pool or the device is full, or 0.
    pub pool_full: i32,
}

/// The outcome of admission.
#[derive(Debug)]
pub enum Admission {
    Run(Admitted),
    /// About the PG, not an object.
    PgOps(OpRequest),
    /// Answered with this (negative) error.
    Refuse(OpRequest, i32),
    /// Logged before; answer from the log once the transaction of this ticket is published.
    Duplicate(OpRequest, u64),
    /// Not for us: no answer, as Ceph does.
    Drop(&'static str),
}

/// Checks `request` against the map and the PG's log.
pub fn admit(
    mut request: OpRequest,
    pg: &Rc<Pg>,
    map: &OsdMap,
    limits: &AdmitLimits,
    full: &Fullness,
    now: UTime,
) -> Admission {
    let msg = &request.msg;
    let pgid = pg.pgid.pgid;
    let Some(pool) = map.pool(pgid.pool) else {
        return Admission::Drop("its pool is gone");
    };
    if !request.class.pg && !pg_contains(pgid, pool.pg_num, msg.hash) {
        return Admission::Drop("its object is not in the PG");
    }
    if msg.has_flag(flag::PARALLELEXEC) {
        return Admission::Refuse(request, -EINVAL);
    }
    let called = calls(&msg.ops).collect::<Result<Vec<_>, _>>();
    let called = match called {
        Ok(called) => called,
        Err(errno) => return Admission::Refuse(request, -errno),
    };
    if request.class.is_empty() {
        return Admission::Refuse(request, -EINVAL);
    }
    if !capable(&request, &called, map, pool) {
        return Admission::Refuse(request, -EPERM);
    }
    if request.class.pg {
        return Admission::PgOps(request);
    }
    let writes = request.class.writes;
    let refusal = name_refusal(&request, limits)
        .or_else(|| is_blocklisted(&request, map, now).then_some(EBLOCKLISTED));
    if let Some(errno) = refusal {
        return Admission::Refuse(request, -errno);
    }
    if (writes || msg.has_flag(flag::RWORDERED))
        && let Some(why) = full.drops(msg)
    {
        return Admission::Drop(why);
    }
    if let Some(errno) = write_refusal(&request, limits).filter(|_| writes) {
        return Admission::Refuse(request, -errno);
    }
    if writes && let Some((_, ticket)) = pg.recorded(&request.reqid) {
        return Admission::Duplicate(request, ticket);
    }
    if let Some(errno) = snap_refusal(&request) {
        return Admission::Refuse(request, -errno);
    }
    let oid = object_key(msg.hash, &msg.locator.nspace, &msg.locator.key, &msg.oid);
    let mode = match (writes, request.class.reads_data, msg.has_flag(flag::RWORDERED)) {
        (true, false, _) => Mode::Write,
        (true, true, _) | (false, _, true) => Mode::Exclusive,
        (false, _, false) => Mode::Read,
    };
    let pool_full = if writes { full_errno(&request, map, pool, full) } else { 0 };
    let snaps = SnapScope::of(&mut request.msg, pg.snaps());
    let (pg, oid) = (pg.clone(), ObjectKey(oid));
    Admission::Run(Admitted { request, pg, oid, mode, snaps, pool_full })
}

fn capable(request: &OpRequest, called: &[Call], map: &OsdMap, pool: &PgPool) -> bool {
    let session = &request.session;
    if session.allow_all {
        return true;
    }
    let msg = &request.msg;
    let (namespace, object) =
        (String::from_utf8_lossy(&msg.locator.nspace), String::from_utf8_lossy(&msg.oid));
    let classes: Vec<_> = called
        .iter()
        .map(|call| ClassCall {
            class: call.class,
            method: call.method.name,
            reads: call.method.access.reads(),
            writes: call.method.access.writes(),
            in_default_list: true,
        })
        .collect();
    session.caps.is_capable(&OsdAccess {
        pool: map.pool_name(msg.spgid.pgid.pool).unwrap_or_default(),
        namespace: &namespace,
        applications: &pool.application_metadata,
        object: &object,
        reads: request.class.own_reads,
        writes: request.class.own_writes,
        classes: &classes,
        addr: session.socket_addr.addr.map(|a| a.ip()),
    })
}

fn name_refusal(request: &OpRequest, limits: &AdmitLimits) -> Option<i32> {
    let msg = &request.msg;
    let fits = msg.oid.len() <= limits.object_name_len_max
        && msg.locator.key.len() <= limits.object_name_len_max
        && msg.locator.nspace.len() <= limits.namespace_len_max;
    (!fits).then_some(ENAMETOOLONG)
}

fn is_blocklisted(request: &OpRequest, map: &OsdMap, now: UTime) -> bool {
    map.has_bans() && request.session.addrs.iter().any(|addr| map.is_blocklisted(addr, now))
}

fn write_refusal(request: &OpRequest, limits: &AdmitLimits) -> Option<i32> {
    let msg = &request.msg;
    if msg.snap != SnapId::HEAD {
        return Some(EINVAL);
    }
    let size: u64 = msg.ops.iter().map(|o| o.indata.len() as u64).sum();
    (size > limits.write_size_max).then_some(WRITE_TOO_BIG)
}

/// All clones together can only be listed, and snapshot contexts have an order.
fn snap_refusal(request: &OpRequest) -> Option<i32> {
    let msg = &request.msg;
    let about_all = msg.snap == SnapId::DIR;
    let fits = msg.ops.iter().all(|o| (o.code == OpCode::LIST_SNAPS) == about_all);
    let valid = !request.class.writes || msg.snapc.is_valid();
    (!fits || !valid).then_some(EINVAL)
}

/// Who insists fills a full pool; a device that is too full, only who has both flags.
fn full_errno(request: &OpRequest, map: &OsdMap, pool: &PgPool, full: &Fullness) -> i32 {
    let (tries, forces) =
        (request.msg.has_flag(flag::FULL_TRY), request.msg.has_flag(flag::FULL_FORCE));
    let pool_full = pool.has_flag(pool_flags::FULL) || map.has_flag(spirula_maps::flags::FULL);
    match full.is_failsafe() {
        true if tries && forces => 0,
        false if !pool_full || forces => 0,
        _ if pool.has_flag(pool_flags::FULL_QUOTA) => EDQUOT,
        _ => ENOSPC,
    }
}
