//! The operation interpreter: op list x object state -> effects, per-op results, reply. Pure.
//!
//! Ceph's rules are kept one for one (`PrimaryLogPG::do_osd_ops`): an op's code is carried to the
//! next one that sets none, a failure without FAILOK ends the list, and a request that changes
//! nothing but was sent as a write is logged, so that its repetition gets the same answer.
//!
//! Invariant: nothing here waits or touches the store. What is not in memory comes back as
//! [`Fault::Missing`]; the caller loads it and plans again from the start.

mod attr;
mod call;
mod checksum;
mod chunk;
mod copy;
mod cut;
mod data;
mod omap;
mod refused;
mod snap;
#[cfg(test)]
mod tests;
mod tier;
mod tmap;
mod watch;

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey};
use spirula_wire::msg::ops::{OpArgs, OpCode, op_flag};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpResult};
use spirula_wire::types::{HObject, SnapId, UTime};

use crate::errno::*;
use crate::object::{Chunk, Chunks, ObjectInfo};
use crate::op::Extent;
use crate::snap::{Clones, NO_CONTEXT, SnapChange, SnapScope, SnapSet, Write, make_writeable};
use crate::stats::StatDelta;
use crate::view::{Fault, ObjectView, Viewed};
use crate::watch::{WatchEffect, WatchState};
use chunk::Patched;

pub use call::Caller;
pub use chunk::{Filled, lost_with};
pub use copy::{FoundSource, Source, SourceData};
pub use refused::refusal;
pub use tier::{Errand, Reached};

pub use snap::Rollback;

/// Limits that Ceph's options set; the defaults are Pacific's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_object_size: u64,
    pub max_attr_size: u64,
    pub max_attr_name_len: u64,
    pub max_omap_entries_per_request: u64,
    pub max_omap_bytes_per_request: u64,
    pub max_write_op_reply_len: u64,
    pub watch_timeout_seconds: u32,
    pub notify_timeout_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_object_size: 128 << 20,
            max_attr_size: 0,
            max_attr_name_len: 100,
            max_omap_entries_per_request: 1024,
            max_omap_bytes_per_request: 1 << 30,
            max_write_op_reply_len: 64,
            watch_timeout_seconds: 30,
            notify_timeout_seconds: 30,
        }
    }
}

/// What the interpreter needs to know besides the ops and the object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    pub ops: &'a [OsdOp],
    pub may_write: bool,
    pub return_vec: bool,
    pub mtime: UTime,
    pub limits: Limits,
    pub caller: Caller,
    /// What each COPY_FROM copies, and what promotions fetched.
    pub sources: &'a [FoundSource],
    /// Targets that errands were sent to.
    pub reached: &'a [Reached],
    /// What chunks were found to hold.
    pub filled: &'a [Filled],
    /// Redirects lead elsewhere, unless the client asks for the object itself.
    pub ignores_redirects: bool,
    /// Among the writes, even if it only reads.
    pub ordered: bool,
    pub snaps: Option<&'a SnapScope>,
    pub watch: WatchState<'a>,
}

/// One change of the object. They apply in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The object goes with all its parts.
    Remove,
    Write {
        offset: u64,
        data: Bytes,
    },
    Truncate(u64),
    Zero {
        offset: u64,
        length: u64,
    },
    SetXattr {
        name: Bytes,
        value: Bytes,
    },
    RemoveXattr(Bytes),
    SetOmap(Vec<(Bytes, Bytes)>),
    SetOmapHeader(Bytes),
    RemoveOmapKeys(Vec<Bytes>),
    RemoveOmapRange {
        from: Bytes,
        to: Bytes,
    },
    ClearOmap,
    /// The data becomes that of another object; no byte of it moves.
    Clone {
        cid: ContainerId,
        oid: ObjectKey,
        epoch: u64,
        length: u64,
    },
    /// The data becomes that of a clone; it says whether xattrs and omap go.
    Rollback(Rollback),
}

/// What executing the list came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    pub result: i32,
    /// Whether the object existed before the request.
    pub exists: bool,
    pub outputs: Vec<OsdOpResult>,
    /// Offset of the first read, for the alignment hint of the reply.
    pub data_offset: Option<u64>,
    /// CRC-32C of all outputs together, if known already.
    pub data_crc: Option<u32>,
    pub delta: StatDelta,
    /// `None`: the list failed or changed nothing.
    pub change: Option<Change>,
    /// What happens to watches and notifies; nothing if the list failed.
    pub watching: Vec<WatchEffect>,
    /// User version of the object before the request.
    pub user_version: u64,
    /// What has to be done elsewhere before the request can be executed.
    pub errand: Option<Errand>,
}

impl Executed {
    /// No operation ran: the object cannot be read.
    pub fn failed(request: &Request<'_>, errno: i32) -> Self {
        Self {
            result: errno,
            exists: true,
            outputs: untouched_outputs(request.ops),
            data_offset: None,
            data_crc: None,
            delta: StatDelta::default(),
            change: None,
            watching: Vec::new(),
            user_version: 0,
            errand: None,
        }
    }
}

/// The object after a request that changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub effects: Vec<Effect>,
    /// `None` when it no longer exists. Versions and time are still to be set.
    pub info: Option<ObjectInfo>,
    /// Info before the request; `None` when the object is new.
    pub old: Option<ObjectInfo>,
    /// Whether clients see a new version.
    pub user_modify: bool,
    /// The user version of the object that it is a copy of.
    pub copied_version: Option<u64>,
    /// `None`: the object has no clones, and was never written with a snapshot context.
    pub snaps: Option<SnapChange>,
    /// Objects that count a reference of this one, which has none to them any more.
    pub released: Vec<HObject>,
}

/// Runs the ops of `request` against the object in `view`.
pub fn execute<V: ObjectView>(request: &Request<'_>, view: &V) -> Result<Executed, V::Missing> {
    let old = match view.info() {
        Ok(old) => old,
        Err(Fault::Missing(m)) => return Err(m),
        Err(Fault::Errno(errno)) => return Ok(Executed::failed(request, errno)),
    };
    if let Some(target) = tier::leads_to(request, old.as_ref()) {
        let errand = Some(Errand::Forward(target));
        return Ok(Executed { errand, ..Executed::failed(request, 0) });
    }
    let wanted = chunk::wanted(request, old.as_ref());
    if wanted.is_empty() {
        return execute_on(request, view, old, Vec::new());
    }
    match chunk::patches(&wanted, request.filled) {
        Ok(patches) => {
            let patched = Patched { view, patches: &patches };
            execute_on(request, &patched, old, patches.clone())
        }
        Err(chunk::Unfilled::Errno(errno)) => Ok(Executed::failed(request, errno)),
        Err(chunk::Unfilled::Open(chunks)) => {
            let errand = Some(Errand::Fill(chunks));
            Ok(Executed { errand, ..Executed::failed(request, 0) })
        }
    }
}

/// Runs them against an object with all of its data; `patches` are what it has not itself.
fn execute_on<V: ObjectView>(
    request: &Request<'_>,
    view: &V,
    old: Option<ObjectInfo>,
    patches: Vec<(u64, Bytes)>,
) -> Result<Executed, V::Missing> {
    let lists_snaps = request.snaps.is_some_and(|s| s.snap == SnapId::DIR);
    let found = snapset_for(request, view, old.is_some()).and_then(|set| {
        let newest = chunk::of_newest_clone(request, view, old.as_ref(), &set)?;
        Ok((set, newest))
    });
    let (snapset, clone_chunks) = match found {
        Ok(found) => found,
        Err(Fault::Missing(m)) => return Err(m),
        Err(Fault::Errno(errno)) => return Ok(Executed::failed(request, errno)),
    };
    let whiteout = old.is_none() && !snapset.clones.is_empty();
    let mut run = Run {
        view,
        snaps: request.snaps,
        snapset,
        limits: request.limits,
        caller: request.caller,
        sources: request.sources,
        reached: request.reached,
        filled: request.filled,
        errand: None,
        released: Vec::new(),
        dropped: Vec::new(),
        clone_chunks,
        copied_version: None,
        undirty: false,
        watch: request.watch,
        exists: old.is_some(),
        info: old.clone().unwrap_or_default(),
        result: 0,
        effects: Vec::new(),
        watching: Vec::new(),
        touched: false,
        user_modify: false,
        delta: StatDelta::default(),
        data_offset: None,
        read_crc: None,
        current: 0,
    };
    if request.may_write {
        run.promote_patches(patches);
    }
    let outputs = run.all(request.ops)?;
    let mut executed = run.finish(request, old, outputs);
    executed.exists |= lists_snaps && whiteout;
    Ok(executed)
}

/// As much of the snapset as the request may look at or change.
fn snapset_for<V: ObjectView>(
    request: &Request<'_>,
    view: &V,
    exists: bool,
) -> Viewed<SnapSet, V::Missing> {
    let has = |code| request.ops.iter().any(|op| op.code == code);
    let lists = request.snaps.is_some_and(|s| s.snap == SnapId::DIR);
    if !request.may_write && !lists && !has(OpCode::CALL) {
        return Ok(SnapSet::default());
    }
    let set = view.snapset(Clones::Newest)?;
    let clones = exists && request.snaps.is_some_and(|s| set.is_behind(s.context()));
    match !set.clones.is_empty() && (clones || has(OpCode::ROLLBACK)) {
        true => view.snapset(Clones::All),
        false => Ok(set),
    }
}

/// The outputs of a request of which no operation ran.
pub fn untouched_outputs(ops: &[OsdOp]) -> Vec<OsdOpResult> {
    ops.iter().map(|op| OsdOpResult::of(op, 0)).collect()
}

/// No operation of the request.
const INSIDE: usize = usize::MAX;

/// A step's own result code, or `None` to keep the one before it (as Ceph does for some reads).
type Step<M> = Viewed<Option<i32>, M>;

struct Run<'v, V> {
    view: &'v V,
    snaps: Option<&'v SnapScope>,
    /// As it was before a request that may write.
    snapset: SnapSet,
    limits: Limits,
    caller: Caller,
    sources: &'v [FoundSource],
    reached: &'v [Reached],
    filled: &'v [Filled],
    errand: Option<Errand>,
    released: Vec<HObject>,
    /// Chunks that the object has no more, with their places.
    dropped: Vec<(u64, Chunk)>,
    /// Those of the newest clone.
    clone_chunks: Chunks,
    copied_version: Option<u64>,
    /// The object is to be clean after the request.
    undirty: bool,
    watch: WatchState<'v>,
    exists: bool,
    info: ObjectInfo,
    result: i32,
    effects: Vec<Effect>,
    watching: Vec<WatchEffect>,
    /// Something to commit, even if there is no effect besides the new info.
    touched: bool,
    user_modify: bool,
    delta: StatDelta,
    data_offset: Option<u64>,
    /// The last read whose CRC is known, and that.
    read_crc: Option<(usize, u32)>,
    current: usize,
}

impl<V: ObjectView> Run<'_, V> {
    fn all(&mut self, ops: &[OsdOp]) -> Result<Vec<OsdOpResult>, V::Missing> {
        let mut outputs = untouched_outputs(ops);
        for (i, (op, out)) in ops.iter().zip(&mut outputs).enumerate() {
            self.current = i;
            self.user_modify |= is_user_change(op.code);
            match self.step(&op.indata, out) {
                Ok(Some(result)) => self.result = result,
                Ok(None) => {}
                Err(Fault::Errno(errno)) => self.result = errno,
                Err(Fault::Missing(m)) => return Err(m),
            }
            out.rval = self.result;
            if self.errand.is_some() {
                break;
            }
            if self.result < 0 {
                if out.flags & op_flag::FAILOK == 0 {
                    break;
                }
                self.result = 0;
            }
        }
        Ok(outputs)
    }

    /// `out` carries code, flags and arguments in, and back to the client.
    fn step(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        self.munge(out);
        match out.code {
            OpCode::READ | OpCode::SYNC_READ => self.read(out),
            OpCode::SPARSE_READ => self.sparse_read(out),
            OpCode::MAPEXT => self.mapext(out),
            OpCode::STAT => self.stat(out),
            OpCode::CMPEXT => self.cmpext(input, out),
            OpCode::CHECKSUM => self.checksum(input, out),
            OpCode::ASSERT_VER => self.assert_ver(out),
            OpCode::GETXATTR => self.getxattr(input, out),
            OpCode::GETXATTRS => self.getxattrs(out),
            OpCode::CMPXATTR => self.cmpxattr(input, out),
            OpCode::OMAP_GET_KEYS => self.omap_get_keys(input, out),
            OpCode::OMAP_GET_VALS => self.omap_get_vals(input, out),
            OpCode::OMAP_GET_HEADER => self.omap_get_header(out),
            OpCode::OMAP_GET_VALS_BY_KEYS => self.omap_get_vals_by_keys(input, out),
            OpCode::OMAP_CMP => self.omap_cmp(input),
            OpCode::WRITE => self.write(input, out),
            OpCode::WRITEFULL => self.writefull(input, out),
            OpCode::APPEND => self.append(input, out),
            OpCode::WRITESAME => self.writesame(input, out),
            OpCode::TRUNCATE | OpCode::TRIMTRUNC => self.truncate(out),
            OpCode::ZERO => self.zero(out),
            OpCode::CREATE => self.create(input, out),
            OpCode::DELETE => self.delete(),
            OpCode::SET_ALLOC_HINT => self.set_alloc_hint(out),
            OpCode::LIST_SNAPS => self.list_snaps(out),
            OpCode::ROLLBACK => self.rollback(out),
            OpCode::SETXATTR => self.setxattr(input, out),
            OpCode::RMXATTR => self.rmxattr(input, out),
            OpCode::OMAP_SET_VALS => self.omap_set_vals(input),
            OpCode::OMAP_SET_HEADER => self.omap_set_header(input),
            OpCode::OMAP_CLEAR => self.omap_clear(),
            OpCode::OMAP_RM_KEYS => self.omap_rm_keys(input),
            OpCode::OMAP_RM_KEY_RANGE => self.omap_rm_key_range(input),
            OpCode::CALL => self.call(input, out),
            _ => self.rare_step(input, out),
        }
    }

    fn rare_step(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        match out.code {
            OpCode::WATCH => self.watch_op(out),
            OpCode::NOTIFY => self.notify(input, out),
            OpCode::NOTIFY_ACK => self.notify_ack(input, out),
            OpCode::LIST_WATCHERS => self.list_watchers(out),
            OpCode::COPY_GET => self.copy_get(input, out),
            OpCode::COPY_FROM | OpCode::COPY_FROM2 => self.copy_from(out),
            OpCode::TMAPGET => self.tmap_get(out),
            OpCode::TMAPPUT => self.tmap_put(input),
            OpCode::TMAPUP => self.tmap_up(input),
            OpCode::TMAP2OMAP => self.tmap_to_omap(out),
            OpCode::STARTSYNC => self.startsync(),
            OpCode::ISDIRTY => self.is_dirty(out),
            OpCode::UNDIRTY => self.undirty(),
            OpCode::SET_REDIRECT => self.set_redirect(input, out),
            OpCode::SET_CHUNK => self.set_chunk(input, out),
            OpCode::TIER_PROMOTE => self.promote(out),
            OpCode::TIER_FLUSH => self.flush(),
            OpCode::TIER_EVICT => self.evict(),
            OpCode::UNSET_MANIFEST => self.unset_manifest(),
            code => err(refusal(code).unwrap_or(EOPNOTSUPP)),
        }
    }

    /// Runs an operation as part of another one: what it reads and writes is not what the message
    /// has checksums of.
    fn run_inside(
        &mut self,
        code: OpCode,
        args: OpArgs,
        input: Bytes,
    ) -> Viewed<OsdOpResult, V::Missing> {
        let mut out = OsdOpResult { code, args, ..OsdOpResult::default() };
        let current = std::mem::replace(&mut self.current, INSIDE);
        let step = self.step(&input, &mut out);
        self.current = current;
        match step? {
            Some(result) if result < 0 => Err(Fault::Errno(result)),
            _ => Ok(out),
        }
    }

    /// Old spellings of arguments: no truncation as (1, -1), and a ZERO that reaches the end.
    fn munge(&self, op: &mut OsdOpResult) {
        if !matches!(op.args, OpArgs::Extent { .. }) {
            return;
        }
        let mut e = Extent::of(&op.args);
        if e.truncate_seq == 1 && e.truncate_size == u64::MAX {
            (e.truncate_seq, e.truncate_size) = (0, 0);
            op.args = e.into();
        }
        let max = self.limits.max_object_size;
        if op.code == OpCode::ZERO
            && self.exists
            && e.offset < max
            && (1..=max).contains(&e.length)
            && e.offset + e.length >= self.info.size
            && e.offset < self.info.size
        {
            op.code = OpCode::TRUNCATE;
        }
    }

    /// Makes the object if it does not exist yet.
    fn ensure_exists(&mut self) {
        self.touched = true;
        if !self.exists {
            self.exists = true;
            self.info = ObjectInfo { truncate: self.info.truncate, ..ObjectInfo::default() };
            self.delta.num_objects += 1;
        }
    }

    fn effect(&mut self, effect: Effect) {
        self.touched = true;
        self.drop_chunks(&effect);
        self.effects.push(effect);
    }

    /// The object as the view shows it; absent objects answer ENOENT.
    fn require_stored(&self) -> Viewed<(), V::Missing> {
        match self.view.info()? {
            Some(_) => Ok(()),
            None => Err(Fault::Errno(-ENOENT)),
        }
    }

    fn count_read(&mut self, bytes: u64) {
        self.delta.num_rd += 1;
        self.delta.num_rd_kb += kib(bytes);
    }

    /// Makes the clone that a newer snapshot context wants, and counts it.
    fn settle_snaps(
        &mut self,
        request: &Request<'_>,
        old: Option<&ObjectInfo>,
    ) -> Option<SnapChange> {
        let context = request.snaps.map_or(&NO_CONTEXT, SnapScope::context);
        let write = Write { context, old, effects: &self.effects, exists: self.exists };
        let before = std::mem::take(&mut self.snapset);
        let change = make_writeable(before, write, &mut self.delta);
        (!change.is_nothing()).then_some(change)
    }

    fn finish(
        mut self,
        request: &Request<'_>,
        old: Option<ObjectInfo>,
        mut outputs: Vec<OsdOpResult>,
    ) -> Executed {
        let (exists, user_version) = (old.is_some(), old.as_ref().map_or(0, |o| o.user_version));
        let changed = self.touched && self.result >= 0 && request.may_write;
        if changed {
            self.result = settle_write_outputs(request, self.result, &mut outputs);
        }
        let change = (changed && self.result >= 0).then(|| {
            let omap = |i: &ObjectInfo| i64::from(i.omap);
            let now = self.exists.then_some(&self.info);
            self.delta.num_objects_omap += now.map_or(0, omap) - old.as_ref().map_or(0, omap);
            if self.exists && request.mtime != UTime::default() {
                self.info.mtime = request.mtime;
            }
            self.info.clean = self.undirty;
            let snaps = self.settle_snaps(request, old.as_ref());
            self.release_chunks(snaps.as_ref(), old.as_ref());
            Change {
                effects: std::mem::take(&mut self.effects),
                info: self.exists.then(|| std::mem::take(&mut self.info)),
                old,
                user_modify: self.user_modify,
                copied_version: self.copied_version,
                snaps,
                released: std::mem::take(&mut self.released),
            }
        });
        let mut watching = if self.result >= 0 { self.watching } else { Vec::new() };
        watching.sort_by_key(WatchEffect::rank);
        let delta = if change.is_some() { self.delta } else { self.delta.reads_only() };
        let with_output = |(i, out): (usize, &OsdOpResult)| (out.out_len() > 0).then_some(i);
        let mut answering = outputs.iter().enumerate().filter_map(with_output);
        let alone = (answering.next(), answering.next());
        let data_crc = self.read_crc.filter(|(i, _)| alone == (Some(*i), None)).map(|(_, crc)| crc);
        Executed {
            result: self.result,
            exists,
            outputs,
            data_offset: self.data_offset,
            data_crc,
            delta,
            change,
            watching,
            user_version,
            errand: self.errand,
        }
    }
}

/// A write that succeeds returns no data, since a repetition could not return the same; with
/// RETURNVEC it may return a little, which the log keeps.
fn settle_write_outputs(request: &Request<'_>, result: i32, outputs: &mut [OsdOpResult]) -> i32 {
    if !request.return_vec {
        outputs.iter_mut().for_each(|o| o.outdata.clear());
        return 0;
    }
    let mut result = result;
    for out in outputs {
        if out.out_len() as u64 > request.limits.max_write_op_reply_len {
            out.outdata.clear();
            out.rval = -EOVERFLOW;
            result = -EOVERFLOW;
        }
    }
    result
}

/// Whether users see a change by this operation. A copy takes over the version of its source.
fn is_user_change(code: OpCode) -> bool {
    code.writes()
        && !matches!(
            code,
            OpCode::WATCH
                | OpCode::UNDIRTY
                | OpCode::COPY_FROM
                | OpCode::COPY_FROM2
                | OpCode::CACHE_PIN
                | OpCode::CACHE_UNPIN
                | OpCode::SET_REDIRECT
                | OpCode::TIER_PROMOTE
        )
}

fn err<M>(errno: i32) -> Step<M> {
    Err(Fault::Errno(-errno))
}

fn ok<M>() -> Step<M> {
    Ok(Some(0))
}

fn kib(bytes: u64) -> i64 {
    i64::try_from(bytes.div_ceil(1024)).unwrap_or(i64::MAX)
}
