//! Class calls: the object as a method sees it. What a method does goes through the operations of the
//! interpreter, so that both have one meaning.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_cls::context::{Page, Watcher, fail};
use spirula_cls::{Context, Halt, Origin, Outcome};
use spirula_wire::msg::ops::{OpArgs, OpCode, op_flag};
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::types::{EntityAddr, EntityName, EntityType, ListWatchResponse, SnapId, UTime};
use spirula_wire::{Decode, Encode, Features};

use super::{INSIDE, Run, Step, err};
use crate::class::Call;
use crate::errno::*;
use crate::view::{Fault, ObjectView, Viewed};

const F: Features = Features::PACIFIC;

/// What methods may ask besides the object: who calls, when, and what the cluster is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: EntityName,
    pub addr: EntityAddr,
    pub features: Features,
    pub now: UTime,
    pub min_compat_client: u8,
    pub osd_release: u8,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            name: EntityName::new(EntityType::CLIENT, 0),
            addr: EntityAddr::default(),
            features: F,
            now: UTime::default(),
            min_compat_client: 0,
            osd_release: 0,
        }
    }
}

impl<V: ObjectView> Run<'_, V> {
    /// Output goes to the client with an error, too. A method that does more than its row says fails.
    pub(super) fn call(&mut self, input: &Bytes, out: &mut OsdOpResult) -> Step<V::Missing> {
        let call = match Call::resolve(&out.args, input) {
            Ok(call) => call,
            Err(errno) => return err(errno),
        };
        let access = call.method.access;
        self.user_modify |= access.writes();
        let subop = std::mem::replace(&mut self.current, INSIDE);
        let mut inside =
            Inside { run: self, subop, missing: None, read: false, wrote: false, returned: 0 };
        let mut data = Vec::new();
        let outcome = (call.method.run)(&mut inside, &call.input, &mut data);
        let Inside { missing, read, wrote, returned, .. } = inside;
        self.current = subop;
        if let Some(missing) = missing {
            return Err(Fault::Missing(missing));
        }
        if read && !access.reads() || wrote && !access.writes() {
            let (class, method) = (call.class, call.method.name);
            tracing::error!("method {class}.{method} does more to its object than its row says");
            return err(EIO);
        }
        if !data.is_empty() {
            out.outdata = vec![data.into()];
        }
        match outcome {
            Ok(()) => Ok(Some(returned)),
            Err(Halt::Errno(errno)) => err(errno),
            // Nothing is missing: the method made it up.
            Err(Halt::Missing) => err(EIO),
        }
    }
}

/// The object in the middle of a request.
struct Inside<'r, 'v, V: ObjectView> {
    run: &'r mut Run<'v, V>,
    subop: usize,
    /// What has to be loaded before the request runs again.
    missing: Option<V::Missing>,
    read: bool,
    wrote: bool,
    /// The result of success.
    returned: i32,
}

impl<V: ObjectView> Inside<'_, '_, V> {
    /// Runs one operation of the interpreter.
    fn op(&mut self, code: OpCode, args: OpArgs, input: Bytes) -> Outcome<OsdOpResult> {
        self.op_with(OsdOpResult { code, args, ..OsdOpResult::default() }, &input)
    }

    fn op_with(&mut self, mut out: OsdOpResult, input: &Bytes) -> Outcome<OsdOpResult> {
        // A method that only writes may ask whether the object is there.
        self.read |= out.code.reads() && out.code != OpCode::STAT;
        self.wrote |= out.code.writes();
        let step = self.run.step(input, &mut out);
        match self.viewed(step)? {
            Some(result) if result < 0 => fail(-result),
            _ => Ok(out),
        }
    }

    /// For a method there are error numbers only; what is missing stays here.
    fn viewed<T>(&mut self, step: Viewed<T, V::Missing>) -> Outcome<T> {
        match step {
            Ok(value) => Ok(value),
            Err(Fault::Errno(errno)) => fail(-errno),
            Err(Fault::Missing(missing)) => {
                self.missing.get_or_insert(missing);
                Err(Halt::Missing)
            }
        }
    }

    fn look<T>(
        &mut self,
        look: impl FnOnce(&mut Run<'_, V>) -> Viewed<T, V::Missing>,
    ) -> Outcome<T> {
        self.read = true;
        let step = look(self.run);
        self.viewed(step)
    }

    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Run<'_, V>) -> Viewed<T, V::Missing>,
    ) -> Outcome {
        self.wrote = true;
        let step = change(self.run);
        self.viewed(step).map(drop)
    }

    fn ranged(&mut self, code: OpCode, offset: u64, data: Bytes) -> Outcome {
        let args = OpArgs::extent(offset, data.len() as u64);
        self.op(code, args, data).map(drop)
    }
}

fn xattr_args(name: &str, value: &[u8]) -> OpArgs {
    OpArgs::Xattr {
        name_len: name.len() as u32,
        value_len: value.len() as u32,
        cmp_op: 0,
        cmp_mode: 0,
    }
}

fn joined(out: OsdOpResult) -> Bytes {
    match <[Bytes; 1]>::try_from(out.outdata) {
        Ok([one]) => one,
        Err(pieces) => pieces.concat().into(),
    }
}

impl<V: ObjectView> Context for Inside<'_, '_, V> {
    fn origin(&self) -> Origin {
        Origin { name: self.run.caller.name, addr: self.run.caller.addr }
    }

    fn client_features(&self) -> Features {
        self.run.caller.features
    }

    fn now(&self) -> UTime {
        self.run.caller.now
    }

    fn user_version(&self) -> u64 {
        self.run.info.user_version
    }

    fn subop(&self) -> i32 {
        i32::try_from(self.subop).unwrap_or(i32::MAX)
    }

    /// No object has snapshots yet.
    fn snapset_seq(&mut self) -> Outcome<u64> {
        let set = &self.run.snapset;
        if self.run.exists || !set.clones.is_empty() { Ok(set.seq.0) } else { fail(ENOENT) }
    }

    fn require_min_compat_client(&self) -> u8 {
        self.run.caller.min_compat_client
    }

    fn require_osd_release(&self) -> u8 {
        self.run.caller.osd_release
    }

    fn max_object_size(&self) -> u64 {
        self.run.limits.max_object_size
    }

    fn stat(&mut self) -> Outcome<(u64, UTime)> {
        self.op(OpCode::STAT, OpArgs::default(), Bytes::new())?;
        Ok((self.run.info.size, self.run.info.mtime))
    }

    fn read(&mut self, offset: u64, length: u64) -> Outcome<Bytes> {
        let args = OpArgs::extent(offset, length);
        self.op(OpCode::SYNC_READ, args, Bytes::new()).map(joined)
    }

    fn sparse_read(&mut self, offset: u64, length: u64) -> Outcome<Vec<(u64, Bytes)>> {
        self.look(|run| {
            let extents = run.written_extents(offset, length)?;
            let read =
                |(offset, length)| Ok((offset, run.view.read(offset, length)?.concat().into()));
            extents.into_iter().map(read).collect()
        })
    }

    fn xattr(&mut self, name: &str) -> Outcome<Bytes> {
        let input = Bytes::copy_from_slice(name.as_bytes());
        self.op(OpCode::GETXATTR, xattr_args(name, b""), input).map(joined)
    }

    fn xattrs(&mut self) -> Outcome<BTreeMap<Bytes, Bytes>> {
        let all = self.look(|run| {
            run.require_stored()?;
            run.count_read(0);
            run.view.xattrs()
        })?;
        Ok(all.into_iter().collect())
    }

    fn omap_header(&mut self) -> Outcome<Bytes> {
        self.op(OpCode::OMAP_GET_HEADER, OpArgs::default(), Bytes::new()).map(joined)
    }

    fn omap_value(&mut self, key: &[u8]) -> Outcome<Bytes> {
        let value = self.look(|run| {
            run.count_read(0);
            if run.has_omap()? { run.view.omap_value(key) } else { Ok(None) }
        })?;
        value.map_or_else(|| fail(ENOENT), Ok)
    }

    fn omap_values(
        &mut self,
        after: &[u8],
        prefix: &[u8],
        max: u64,
    ) -> Outcome<Page<(Bytes, Bytes)>> {
        let (after, prefix) = (Bytes::copy_from_slice(after), Bytes::copy_from_slice(prefix));
        let mut items = Vec::new();
        let more = self.look(|run| {
            run.walk(&after, &prefix, max, |key, value| {
                items.push((key.clone(), value.clone()));
                key.len() + value.len()
            })
        })?;
        Ok(Page { items, more })
    }

    fn watchers(&mut self) -> Outcome<Vec<Watcher>> {
        let out = self.op(OpCode::LIST_WATCHERS, OpArgs::default(), Bytes::new())?;
        let listed = ListWatchResponse::from_bytes(&joined(out))?;
        let watcher = |w: spirula_wire::types::WatchItem| Watcher {
            name: w.name,
            cookie: w.cookie,
            timeout_seconds: w.timeout_seconds,
            addr: w.addr,
        };
        Ok(listed.entries.into_iter().map(watcher).collect())
    }

    fn create(&mut self, exclusive: bool) -> Outcome {
        let flags = if exclusive { op_flag::EXCL } else { 0 };
        let create = OsdOpResult { code: OpCode::CREATE, flags, ..OsdOpResult::default() };
        self.op_with(create, &Bytes::new()).map(drop)
    }

    fn remove(&mut self) -> Outcome {
        self.op(OpCode::DELETE, OpArgs::default(), Bytes::new()).map(drop)
    }

    fn write(&mut self, offset: u64, data: Bytes) -> Outcome {
        self.ranged(OpCode::WRITE, offset, data)
    }

    fn write_full(&mut self, data: Bytes) -> Outcome {
        self.ranged(OpCode::WRITEFULL, 0, data)
    }

    fn truncate(&mut self, size: u64) -> Outcome {
        self.op(OpCode::TRUNCATE, OpArgs::extent(size, 0), Bytes::new()).map(drop)
    }

    fn zero(&mut self, offset: u64, length: u64) -> Outcome {
        self.op(OpCode::ZERO, OpArgs::extent(offset, length), Bytes::new()).map(drop)
    }

    fn set_xattr(&mut self, name: &str, value: Bytes) -> Outcome {
        let input = [name.as_bytes(), &value].concat().into();
        self.op(OpCode::SETXATTR, xattr_args(name, &value), input).map(drop)
    }

    fn remove_xattr(&mut self, name: &str) -> Outcome {
        let input = Bytes::copy_from_slice(name.as_bytes());
        self.op(OpCode::RMXATTR, xattr_args(name, b""), input).map(drop)
    }

    fn set_omap_header(&mut self, header: Bytes) -> Outcome {
        self.op(OpCode::OMAP_SET_HEADER, OpArgs::default(), header).map(drop)
    }

    fn set_omap(&mut self, pairs: Vec<(Bytes, Bytes)>) -> Outcome {
        self.change(|run| {
            let bytes = pairs.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
            run.set_omap_pairs(pairs, bytes);
            Ok(())
        })
    }

    fn remove_omap_key(&mut self, key: &[u8]) -> Outcome {
        let keys = vec![Bytes::copy_from_slice(key)];
        self.change(|run| run.remove_omap_keys(keys))
    }

    fn remove_omap_range(&mut self, from: &[u8], to: &[u8]) -> Outcome {
        let input = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to)).to_bytes(F);
        self.op(OpCode::OMAP_RM_KEY_RANGE, OpArgs::default(), input.into()).map(drop)
    }

    fn clear_omap(&mut self) -> Outcome {
        self.op(OpCode::OMAP_CLEAR, OpArgs::default(), Bytes::new()).map(drop)
    }

    fn snap_revert(&mut self, snapid: u64) -> Outcome {
        let args = OpArgs::Snap { snapid: SnapId(snapid) };
        self.op(OpCode::ROLLBACK, args, Bytes::new()).map(drop)
    }

    fn chunk_references(&mut self, target: &[u8]) -> u32 {
        self.read = true;
        self.run.info.chunks.values().filter(|chunk| chunk.target.oid == target).count() as u32
    }

    fn set_return_value(&mut self, value: u32) {
        self.returned = i32::try_from(value).unwrap_or(i32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use spirula_wire::msg::osd_op::OsdOp;

    use super::super::{Request, execute};
    use super::*;
    use crate::object::ObjectInfo;

    type Seen<T> = Viewed<T, &'static str>;

    /// An object of which only the info is in memory.
    struct Cold;

    impl ObjectView for Cold {
        type Missing = &'static str;

        fn info(&self) -> Seen<Option<ObjectInfo>> {
            Ok(Some(ObjectInfo { size: 5, omap: true, ..ObjectInfo::default() }))
        }
        fn xattr(&self, _: &[u8]) -> Seen<Option<Bytes>> {
            Err(Fault::Missing("xattr"))
        }
        fn xattrs(&self) -> Seen<Vec<(Bytes, Bytes)>> {
            Err(Fault::Missing("xattrs"))
        }
        fn omap_header(&self) -> Seen<Bytes> {
            Err(Fault::Missing("header"))
        }
        fn omap_value(&self, _: &[u8]) -> Seen<Option<Bytes>> {
            Err(Fault::Missing("omap"))
        }
        fn omap_range(&self, _: &[u8], _: bool, _: usize) -> Seen<Vec<(Bytes, Bytes)>> {
            Err(Fault::Missing("omap"))
        }
        fn read(&self, _: u64, _: u64) -> Seen<Vec<Bytes>> {
            Err(Fault::Missing("data"))
        }
        fn extents(&self, _: u64, _: u64) -> Seen<Vec<(u64, u64)>> {
            Err(Fault::Missing("data"))
        }
    }

    #[test]
    fn what_a_method_misses_is_what_the_request_misses() {
        for (class, method, misses) in [
            ("hello", "replay", Err("data")),
            ("hello", "say_hello", Ok(0)),
            ("version", "read", Err("xattr")),
            ("rbd", "dir_list", Err("omap")),
            ("hello", "record_hello", Ok(-EEXIST)),
        ] {
            let input: &[u8] = if class == "rbd" { b"\0\0\0\0\x09\0\0\0\0\0\0\0" } else { b"" };
            let args = OpArgs::Cls {
                class_len: class.len() as u8,
                method_len: method.len() as u8,
                argc: 0,
                indata_len: input.len() as u32,
            };
            let indata = [class.as_bytes(), method.as_bytes(), input].concat();
            let ops = [OsdOp::new(OpCode::CALL, args, indata.into())];
            let request = Request { ops: &ops, may_write: true, ..Request::default() };
            let result = execute(&request, &Cold).map(|done| done.result);
            assert_eq!(result, misses, "{class}.{method}");
        }
    }
}
