//! Sources of COPY_FROM: where they are, their locks, and what is to be copied.
//!
//! All locks of a request are asked for in one turn, and an object's lock goes in the order of asking:
//! so of two requests that wait for each other's objects one was first everywhere. Data is not read:
//! the copy shares the source's blocks, unless they are another target's.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use spirula_store::Store;
use spirula_vos::{ObjectKey, Vos};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{ObjectLocator, SnapId, SpgId};
use spirula_wire::{Decode, DecodeError, Reader};

use crate::admit::Admitted;
use crate::errno::*;
use crate::load::{LoadedData, Need, StoreView};
use crate::object::{ObjectInfo, object_key};
use crate::pg::Pg;
use crate::pg::locks::{Held, Mode};
use crate::plan::{FoundSource, Source, SourceData};
use crate::remote::Remote;
use crate::snap::{Place, SnapScope};
use crate::target::Target;
use crate::view::{Fault, ObjectView, Viewed};

/// COPY_FROM2 gives truncation sequence and size (`CEPH_OSD_COPY_FROM_FLAG_TRUNCATE_SEQ`).
const TRUNCATE_SEQ: u8 = 0x20;

/// The sources of one request, with their locks.
#[derive(Debug, Default)]
pub struct Sources {
    named: Vec<Named>,
    held: Vec<Held>,
    /// What errands brought.
    added: Vec<FoundSource>,
}

/// What one COPY_FROM names.
#[derive(Debug)]
struct Named {
    op: usize,
    /// Or a (negative) error.
    object: Result<Object, i32>,
    /// It is on another target.
    remote: Option<Remote>,
    /// What came from there.
    fetched: Option<Source>,
    /// User version that it must have, 0 for any.
    version: u64,
    truncate: Option<(u32, u64)>,
}

#[derive(Clone, Debug)]
struct Object {
    pg: Rc<Pg>,
    oid: ObjectKey,
    /// The head, or a snapshot of it.
    scope: SnapScope,
    /// It is the object that the request changes, whose lock it has anyway.
    own: bool,
}

impl Object {
    fn is(&self, pg: &Pg, oid: &ObjectKey) -> bool {
        self.pg.cid == pg.cid && self.oid == *oid
    }
}

impl Sources {
    /// Finds what the request's operations name.
    pub fn of(target: &Target, admitted: &Admitted) -> Self {
        let ops = admitted.request.msg.ops.iter().enumerate();
        let copies =
            ops.filter(|(_, op)| matches!(op.code, OpCode::COPY_FROM | OpCode::COPY_FROM2));
        let named = copies.map(|(i, op)| {
            let mut named = Named::of(target, i, op);
            if let Ok(object) = &mut named.object {
                object.own = object.is(&admitted.pg, &admitted.oid);
                if object.own && object.scope.snap == SnapId::HEAD {
                    named.object = Err(-EINVAL);
                }
            }
            named
        });
        Self { named: named.collect(), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Waits until no source changes any more. Each object is asked for once.
    pub async fn lock(&mut self) {
        let mut objects: Vec<&Object> = Vec::new();
        for object in self.named.iter().filter_map(|n| n.object.as_ref().ok()) {
            if !object.own && !objects.iter().any(|o| o.is(&object.pg, &object.oid)) {
                objects.push(object);
            }
        }
        let locks = objects.iter().map(|o| o.pg.locks.acquire(o.oid.0.clone(), Mode::Read));
        self.held = join_all(locks).await;
    }

    /// Brings what is on other targets here.
    pub async fn fetch(&mut self, target: &Target) {
        for named in &mut self.named {
            let Some(remote) = &named.remote else {
                continue;
            };
            match remote.fetch(target, named.version).await {
                Ok(mut source) => {
                    source.info.truncate = named.truncate.or(source.info.truncate);
                    named.fetched = Some(source);
                }
                Err(errno) => named.object = Err(errno),
            }
        }
    }

    /// Takes what was fetched for another operation than a COPY_FROM.
    pub fn add(&mut self, found: FoundSource) {
        self.added.push(found);
    }

    /// The least epoch at which a transaction sees all of the sources.
    pub fn epoch(&self) -> u64 {
        let objects = self.named.iter().filter_map(|n| n.object.as_ref().ok());
        objects.map(|o| o.pg.state.borrow().last_epoch + 1).max().unwrap_or(0)
    }

    /// What the sources are now.
    pub fn gather(&self, store: &Store, vos: &Vos) -> Result<Vec<FoundSource>, Need> {
        let mut all = self.added.clone();
        for named in &self.named {
            match named.gather(store, vos) {
                Ok(source) => all.push((named.op, Ok(source))),
                Err(Fault::Errno(errno)) => all.push((named.op, Err(errno))),
                Err(Fault::Missing(need)) => return Err(need),
            }
        }
        Ok(all)
    }
}

impl Named {
    fn of(target: &Target, op: usize, request: &OsdOp) -> Self {
        let mut named = Self {
            op,
            object: Err(-EINVAL),
            remote: None,
            fetched: None,
            version: 0,
            truncate: None,
        };
        let OpArgs::CopyFrom { snapid, src_version, flags, .. } = request.args else {
            return named;
        };
        named.version = src_version;
        let truncates = request.code == OpCode::COPY_FROM2 && flags & TRUNCATE_SEQ != 0;
        let Ok((name, locator, truncate)) = decode_source(&request.indata, truncates) else {
            return named;
        };
        named.truncate = truncate;
        match find(target, name, locator, snapid) {
            Ok(Found::Here(object)) => named.object = Ok(object),
            Ok(Found::There(remote)) => named.remote = Some(remote),
            Err(errno) => named.object = Err(errno),
        }
        named
    }

    fn gather(&self, store: &Store, vos: &Vos) -> Viewed<Source, Need> {
        if let Some(source) = &self.fetched {
            return Ok(source.clone());
        }
        let object = self.object.as_ref().map_err(|errno| Fault::Errno(*errno))?;
        if !object.pg.active.get() {
            // It may be elsewhere, or in another container, by a newer map.
            return Err(Fault::Errno(-EAGAIN));
        }
        let (data, cid) = (LoadedData::default(), object.pg.cid);
        let head = StoreView::new(store, vos, cid, &object.oid, &data);
        let (view, epoch) = match Place::find(&object.scope, &head)? {
            Place::Head => (head, u64::MAX),
            Place::Past(epoch) => (head.at(epoch), epoch),
        };
        let mut info = view.info()?.ok_or(Fault::Errno(-ENOENT))?;
        self.check_version(&info)?;
        if info.redirect.is_some() && info.size == 0 {
            // Ceph never answers.
            return Err(Fault::Errno(-EOPNOTSUPP));
        }
        let (mut omap_header, mut omap) = (Bytes::new(), Vec::new());
        if info.omap {
            (omap_header, omap) = (view.omap_header()?, view.omap_range(b"", false, usize::MAX)?);
            info.omap = !omap_header.is_empty() || !omap.is_empty();
        }
        info.truncate = self.truncate.or(info.truncate);
        let has_data = info.size > 0 && !view.extents(0, info.size)?.is_empty();
        let data = if has_data {
            SourceData::Shared { cid, oid: object.oid.clone(), epoch }
        } else {
            SourceData::Bytes(Vec::new())
        };
        Ok(Source { xattrs: view.xattrs()?, omap_header, omap, data, info })
    }

    fn check_version(&self, info: &ObjectInfo) -> Viewed<(), Need> {
        match self.version {
            0 => Ok(()),
            version if version < info.user_version => Err(Fault::Errno(-ERANGE)),
            version if version > info.user_version => Err(Fault::Errno(-EOVERFLOW)),
            _ => Ok(()),
        }
    }
}

/// A COPY_FROM's input: name, locator and, if it `truncates`, sequence and size.
pub(crate) fn decode_source(
    input: &[u8],
    truncates: bool,
) -> Result<(Bytes, ObjectLocator, Option<(u32, u64)>), DecodeError> {
    let reader = &mut Reader::new(input);
    let (name, locator) = (Bytes::decode(reader)?, ObjectLocator::decode(reader)?);
    let truncate = if truncates { Some((reader.u32()?, reader.u64()?)) } else { None };
    Ok((name, locator, truncate))
}

enum Found {
    Here(Object),
    There(Remote),
}

/// Where an object is.
fn find(target: &Target, name: Bytes, locator: ObjectLocator, snap: SnapId) -> Result<Found, i32> {
    let map = target.map();
    let raw = map.object_to_pg(&locator, &name).ok_or(-ENOENT)?;
    let pgid = map.raw_pg_to_pg(raw).ok_or(-ENOENT)?;
    let Some(pg) = target.pgs().get(pgid) else {
        let addrs = map.client_addrs(map.pg_to_up_acting(pgid).acting_primary);
        let addr = addrs.and_then(|addrs| addrs.msgr2()).ok_or(-EAGAIN)?;
        let (pgid, hash) = (SpgId::whole(pgid), raw.seed);
        return Ok(Found::There(Remote { addr, pgid, hash, name, locator, snap }));
    };
    if !pg.active.get() {
        return Err(-EAGAIN);
    }
    let oid = ObjectKey(object_key(raw.seed, &locator.nspace, &locator.key, &name));
    let scope = SnapScope { snap, pool: pg.snaps(), ..SnapScope::default() };
    Ok(Found::Here(Object { pg, oid, scope, own: false }))
}
