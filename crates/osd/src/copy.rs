//! Sources of COPY_FROM: where they are, their locks, and what is to be copied.
//!
//! All locks of a request are asked for in one turn, and an object's lock goes in the order of asking:
//! so of two requests that wait for each other's objects one was first everywhere. Data is not read:
//! the copy shares the source's blocks, unless they are another target's, or some copy of the PG may not
//! have them.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join_all;
use spirula_pg::State;
use spirula_store::{Store, StoreError};
use spirula_vos::{ObjectKey, ReadError, Vos};
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{HObject, ObjectLocator, PgId, SnapId};
use spirula_wire::{Decode, DecodeError, Reader};

use crate::admit::Admitted;
use crate::errno::*;
use crate::load::{LoadedData, Need, StoreView};
use crate::object::{ObjectInfo, object_key};
use crate::pg::Pg;
use crate::pg::locks::{Held, Mode};
use crate::plan::{Filled, FoundSource, Source, SourceData};
use crate::proxy::object_of;
use crate::remote;
use crate::shard::recover;
use crate::snap::{Place, SnapScope};
use crate::target::{Target, TargetError};
use crate::view::{Fault, ObjectView, Viewed};

/// COPY_FROM2 gives truncation sequence and size (`CEPH_OSD_COPY_FROM_FLAG_TRUNCATE_SEQ`).
const TRUNCATE_SEQ: u8 = 0x20;
/// Bytes of a source read at a time.
const PIECE: u64 = 8 << 20;

/// The sources of one request, with their locks.
#[derive(Debug, Default)]
pub struct Sources {
    named: Vec<Named>,
    held: Vec<(Object, Held)>,
    /// What errands brought.
    added: Vec<FoundSource>,
    filled: Vec<Filled>,
}

/// What one COPY_FROM names.
#[derive(Debug)]
struct Named {
    op: usize,
    /// Or a (negative) error.
    object: Result<Object, i32>,
    /// As clients name it.
    name: HObject,
    /// It is on another target.
    remote: bool,
    /// What was read beforehand, of other targets as clients read it.
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
    /// Waits until the object, called `name`, is whole here, and may be read.
    async fn settle(&self, target: &Target, name: &HObject) {
        let (pg, head) = (&self.pg, HObject { snap: SnapId::HEAD, ..name.clone() });
        while pg.active.get() && pg.shard.machine.borrow().holds_up_read(&head).is_some() {
            recover::wait(target, pg, &head).await;
        }
        while pg.active.get() && !pg.shard.may_serve() {
            target.map_changed().await;
        }
    }

    fn is(&self, pg: &Pg, oid: &ObjectKey) -> bool {
        self.pg.cid == pg.cid && self.oid == *oid
    }

    /// Every copy of `pg`, whose transaction names the blocks, has them.
    fn is_shared_with(&self, pg: &Pg) -> bool {
        let machine = pg.shard.machine.borrow();
        let clean = || machine.state() == State::Clean;
        machine.members().is_empty() || self.own || self.pg.cid == pg.cid && clean()
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
        let mut objects: Vec<Object> = Vec::new();
        for object in self.named.iter().filter_map(|n| n.object.as_ref().ok()) {
            if !object.own && !objects.iter().any(|o| o.is(&object.pg, &object.oid)) {
                objects.push(object.clone());
            }
        }
        let locks = objects.iter().map(|o| o.pg.locks.acquire(o.oid.0.clone(), Mode::Read));
        let locks = join_all(locks).await;
        self.held = objects.into_iter().zip(locks).collect();
    }

    /// Brings here what the copies of `pg`, which a request writes to, cannot take from their own stores.
    pub async fn fetch(&mut self, target: &Target, pg: &Pg) -> Result<(), TargetError> {
        for named in &mut self.named {
            match &named.object {
                _ if named.remote => named.fetch(target, pg).await,
                Ok(object) if !object.own => {
                    object.settle(target, &named.name).await;
                    if !object.is_shared_with(pg) {
                        named.load(target).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Has the source of an operation read as clients read it: it leads to other objects, which may
    /// be asking for it. So its lock is let go.
    pub async fn follow(&mut self, target: &Target, pg: &Pg, op: usize) {
        let Some(named) = self.named.iter_mut().find(|named| named.op == op) else {
            return;
        };
        named.fetched = None;
        match std::mem::replace(&mut named.object, Err(-EAGAIN)) {
            // Ceph never answers.
            Ok(object) if object.own => named.object = Err(-EOPNOTSUPP),
            Ok(object) => {
                self.held.retain(|(held, _)| !held.is(&object.pg, &object.oid));
                named.fetch(target, pg).await;
            }
            Err(errno) => named.object = Err(errno),
        }
    }

    /// Takes what a chunk was found to hold.
    pub fn fill(&mut self, filled: Filled) {
        self.filled.push(filled);
    }

    pub fn filled(&self) -> &[Filled] {
        &self.filled
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
    pub fn gather(&self, pg: &Pg, store: &Store, vos: &Vos) -> Result<Vec<FoundSource>, Need> {
        let mut all = self.added.clone();
        for named in &self.named {
            match named.gather(pg, store, vos) {
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
            name: HObject::default(),
            remote: false,
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
        match object_of(&target.map(), locator, name) {
            Some(head) => {
                named.name = HObject { snap: snapid, ..head };
                let found = find(target, &named.name);
                named.remote = matches!(found, Ok(None));
                named.object = found.and_then(|found| found.ok_or(-EAGAIN));
            }
            None => named.object = Err(-ENOENT),
        }
        named
    }

    async fn fetch(&mut self, target: &Target, pg: &Pg) {
        match remote::fetch(target, pg, &self.name, self.version).await {
            Ok(mut source) => {
                source.info.truncate = self.truncate.or(source.info.truncate);
                self.fetched = Some(source);
            }
            Err(errno) => self.object = Err(errno),
        }
    }

    /// Reads the source here.
    async fn load(&mut self, target: &Target) -> Result<(), TargetError> {
        use StoreError::{Damaged, PoolTooSmall, Read};
        let (store, mut data) = (target.store(), LoadedData::default());
        let found = loop {
            let need = match store.try_read(|vos| Ok(self.read(store, vos, &data))) {
                Ok(Ok(source)) => break Ok(source),
                Ok(Err(Fault::Errno(errno))) => break Err(errno),
                Ok(Err(Fault::Missing(need))) => need,
                Err(ReadError::Missing(pages)) => Need::Pages(pages),
                Err(_) => break Err(-EIO),
            };
            match data.fill(store, need).await {
                Err(e @ (Damaged(_) | Read { .. } | PoolTooSmall)) => {
                    tracing::error!(object = %self.name, "cannot be read: {e}");
                    break Err(-EIO);
                }
                other => other?,
            }
        };
        match found {
            Ok(source) => self.fetched = Some(source),
            Err(errno) => self.object = Err(errno),
        }
        Ok(())
    }

    /// The source with its data.
    fn read(&self, store: &Store, vos: &Vos, loaded: &LoadedData) -> Viewed<Source, Need> {
        let mut source = self.look(store, vos, loaded)?;
        if let SourceData::Shared { cid, oid, epoch } = &source.data {
            let view = StoreView::new(store, vos, *cid, oid, loaded).at(*epoch);
            let mut pieces = Vec::new();
            for (begin, len) in view.extents(0, source.info.size)? {
                for offset in (begin..begin + len).step_by(PIECE as usize) {
                    let piece = view.read(offset, PIECE.min(begin + len - offset))?;
                    pieces.push((offset, piece.concat().into()));
                }
            }
            source.data = SourceData::Bytes(pieces);
        }
        Ok(source)
    }

    fn gather(&self, pg: &Pg, store: &Store, vos: &Vos) -> Viewed<Source, Need> {
        if let Some(source) = &self.fetched {
            return Ok(source.clone());
        }
        if self.object.as_ref().is_ok_and(|object| !object.is_shared_with(pg)) {
            // A copy has lost something meanwhile.
            return Err(Fault::Errno(-EAGAIN));
        }
        self.look(store, vos, &LoadedData::default())
    }

    /// The source as it is here.
    fn look(&self, store: &Store, vos: &Vos, loaded: &LoadedData) -> Viewed<Source, Need> {
        let object = self.object.as_ref().map_err(|errno| Fault::Errno(*errno))?;
        if !object.pg.active.get() {
            // It may be elsewhere, or in another container, by a newer map.
            return Err(Fault::Errno(-EAGAIN));
        }
        let cid = object.pg.cid;
        let head = StoreView::new(store, vos, cid, &object.oid, loaded);
        let (view, epoch) = match Place::find(&object.scope, &head)? {
            Place::Head => (head, u64::MAX),
            Place::Past(epoch) => (head.at(epoch), epoch),
        };
        let mut info = view.info()?.ok_or(Fault::Errno(-ENOENT))?;
        self.check_version(&info)?;
        if info.redirect.is_some() && info.size == 0 || info.chunks.values().any(|c| c.missing) {
            let (xattrs, omap_header, omap) = Default::default();
            return Ok(Source { xattrs, omap_header, omap, data: SourceData::Elsewhere, info });
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

/// The object if it is on this target.
fn find(target: &Target, name: &HObject) -> Result<Option<Object>, i32> {
    let raw = PgId::new(name.pool, name.hash);
    let pgid = target.map().raw_pg_to_pg(raw).ok_or(-ENOENT)?;
    let Some(pg) = target.pgs().get(pgid) else {
        return Ok(None);
    };
    if !pg.active.get() {
        return Err(-EAGAIN);
    }
    let oid = ObjectKey(object_key(name.hash, &name.nspace, &name.key, &name.oid));
    let scope = SnapScope { snap: name.snap, pool: pg.snaps(), ..SnapScope::default() };
    Ok(Some(Object { pg, oid, scope, own: false }))
}
