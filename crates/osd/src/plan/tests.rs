//! Tables: op lists against a model object, with Ceph's results.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use spirula_wire::msg::ops::checksum_type::CRC32C;
use spirula_wire::types::{CopyCursor, CopyData, ObjectLocator};
use spirula_wire::{Decode, Encode, Features};

use super::*;
use crate::op::OpClass;
use crate::view::Past;

mod chunk;
mod redirect;
mod watch;

const F: Features = Features::PACIFIC;

/// A model object, and the effects applied to it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    info: Option<ObjectInfo>,
    data: Vec<u8>,
    xattrs: BTreeMap<Bytes, Bytes>,
    header: Bytes,
    omap: BTreeMap<Bytes, Bytes>,
}

impl Model {
    fn of(data: &str) -> Self {
        let mut m = Self { info: Some(ObjectInfo::default()), ..Self::default() };
        m.run(&[write_full(data)]);
        m
    }

    /// Executes, applies what it decided, and returns it.
    fn run(&mut self, ops: &[OsdOp]) -> Executed {
        self.run_as(ops, false)
    }

    fn run_as(&mut self, ops: &[OsdOp], return_vec: bool) -> Executed {
        let may_write = OpClass::of(ops).writes;
        let request = Request { ops, may_write, return_vec, ..Request::default() };
        let Ok(done) = execute(&request, self);
        if let Some(change) = &done.change {
            for effect in &change.effects {
                self.apply(effect);
            }
            self.info = change.info.clone();
            let size = self.info.as_ref().map_or(0, |i| i.size);
            assert!(self.data.len() as u64 <= size, "data beyond the recorded size");
        }
        done
    }

    fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Remove => *self = Self::default(),
            Effect::Write { offset, data, .. } => {
                let at = *offset as usize;
                self.data.resize(self.data.len().max(at + data.len()), 0);
                self.data[at..at + data.len()].copy_from_slice(data);
            }
            Effect::Truncate(size) => self.data.truncate(*size as usize),
            Effect::Rollback(_) => unreachable!("a model without clones"),
            Effect::Zero { offset, length } => {
                let len = self.data.len();
                let (from, to) = (*offset as usize, (offset + length) as usize);
                self.data[from.min(len)..to.min(len)].fill(0);
            }
            Effect::SetXattr { name, value } => {
                self.xattrs.insert(name.clone(), value.clone());
            }
            Effect::RemoveXattr(name) => {
                self.xattrs.remove(name);
            }
            Effect::SetOmap(pairs) => self.omap.extend(pairs.iter().cloned()),
            Effect::SetOmapHeader(header) => self.header = header.clone(),
            Effect::RemoveOmapKeys(keys) => keys.iter().for_each(|k| {
                self.omap.remove(k);
            }),
            Effect::RemoveOmapRange { from, to } => self.omap.retain(|k, _| k < from || k >= to),
            Effect::Clone { .. } => unreachable!("no list here copies"),
            Effect::ClearOmap => {
                self.omap.clear();
                self.header = Bytes::new();
            }
        }
    }
}

impl ObjectView for Model {
    type Missing = Infallible;

    fn info(&self) -> Viewed<Option<ObjectInfo>, Infallible> {
        Ok(self.info.clone())
    }
    fn xattr(&self, name: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        Ok(self.xattrs.get(name).cloned())
    }
    fn xattrs(&self) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        Ok(self.xattrs.clone().into_iter().collect())
    }
    fn omap_header(&self) -> Viewed<Bytes, Infallible> {
        Ok(self.header.clone())
    }
    fn omap_value(&self, key: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        Ok(self.omap.get(key).cloned())
    }
    fn omap_range(
        &self,
        from: &[u8],
        after: bool,
        max: usize,
    ) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        let inside = |k: &Bytes| if after { k[..] > *from } else { k[..] >= *from };
        let all = self.omap.iter().filter(|(k, _)| inside(k));
        Ok(all.take(max).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
    fn read(&self, offset: u64, len: u64) -> Viewed<Vec<Bytes>, Infallible> {
        let mut data = self.data.clone();
        data.resize((offset + len) as usize, 0);
        Ok(vec![Bytes::from(data).slice(offset as usize..)])
    }
    fn extents(&self, offset: u64, len: u64) -> Viewed<Vec<(u64, u64)>, Infallible> {
        Ok(if len == 0 { vec![] } else { vec![(offset, len)] })
    }
}

fn ranged(code: OpCode, offset: u64, length: u64, data: &str) -> OsdOp {
    OsdOp::new(code, OpArgs::extent(offset, length), data.to_owned().into())
}

fn plain(code: OpCode) -> OsdOp {
    OsdOp { code, ..OsdOp::default() }
}

fn write(offset: u64, data: &str) -> OsdOp {
    ranged(OpCode::WRITE, offset, data.len() as u64, data)
}

fn write_full(data: &str) -> OsdOp {
    ranged(OpCode::WRITEFULL, 0, data.len() as u64, data)
}

fn read(offset: u64, length: u64) -> OsdOp {
    ranged(OpCode::READ, offset, length, "")
}

fn fail_ok(op: OsdOp) -> OsdOp {
    OsdOp { flags: op.flags | op_flag::FAILOK, ..op }
}

fn xattr(code: OpCode, name: &str, value: &[u8], cmp: (u8, u8)) -> OsdOp {
    let indata = [name.as_bytes(), value].concat().into();
    let args = OpArgs::Xattr {
        name_len: name.len() as u32,
        value_len: value.len() as u32,
        cmp_op: cmp.0,
        cmp_mode: cmp.1,
    };
    OsdOp::new(code, args, indata)
}

fn set_xattr(name: &str, value: &str) -> OsdOp {
    xattr(OpCode::SETXATTR, name, value.as_bytes(), (0, 0))
}

fn with_input(code: OpCode, input: &[u8]) -> OsdOp {
    OsdOp { code, indata: Bytes::copy_from_slice(input), ..OsdOp::default() }
}

fn pairs(list: &[(&str, &str)]) -> Vec<u8> {
    let list: Vec<(String, String)> =
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    list.to_bytes(F)
}

fn text(out: &OsdOpResult) -> String {
    String::from_utf8_lossy(&out.outdata.concat()).into_owned()
}

/// Results of each list, run on fresh objects with data "hello".
#[track_caller]
fn check(ops: &[OsdOp], result: i32, rvals: &[i32], data: Option<&str>) {
    let mut m = Model::of("hello");
    let done = m.run(ops);
    assert_eq!(done.result, result);
    assert_eq!(done.outputs.iter().map(|o| o.rval).collect::<Vec<_>>(), rvals);
    let after = m.info.is_some().then(|| String::from_utf8_lossy(&m.data).into_owned());
    assert_eq!(after.as_deref(), data);
}

#[test]
fn data_writes() {
    check(&[write(5, " you")], 0, &[0], Some("hello you"));
    check(&[write(1, "ipp")], 0, &[0], Some("hippo"));
    check(&[write_full("yo")], 0, &[0], Some("yo"));
    check(&[ranged(OpCode::APPEND, 0, 1, "!")], 0, &[0], Some("hello!"));
    check(&[ranged(OpCode::APPEND, 0, 0, "")], 0, &[0], Some("hello"));
    check(&[ranged(OpCode::TRUNCATE, 2, 0, "")], 0, &[0], Some("he"));
    check(&[ranged(OpCode::ZERO, 1, 2, "")], 0, &[0], Some("h\0\0lo"));
    check(&[ranged(OpCode::ZERO, 1, 9, "")], 0, &[0], Some("h"));
    check(&[ranged(OpCode::ZERO, 5, 9, "")], 0, &[0], Some("hello"));
    check(&[plain(OpCode::DELETE)], 0, &[0], None);
    check(&[plain(OpCode::DELETE), plain(OpCode::DELETE)], -ENOENT, &[0, -ENOENT], Some("hello"));
    check(&[plain(OpCode::DELETE), write(0, "x")], 0, &[0, 0], Some("x"));
    check(&[ranged(OpCode::WRITE, 0, 3, "ab")], -EINVAL, &[-EINVAL], Some("hello"));
    let args = OpArgs::WriteSame { offset: 1, length: 4, data_length: 2 };
    check(&[OsdOp::new(OpCode::WRITESAME, args, "ab".into())], 0, &[0], Some("habab"));
}

#[test]
fn size_limits() {
    let max = Limits::default().max_object_size;
    check(&[write(max, "x")], -EFBIG, &[-EFBIG], Some("hello"));
    check(&[write(max - 1, "xy")], -EFBIG, &[-EFBIG], Some("hello"));
    check(&[ranged(OpCode::TRUNCATE, max + 1, 0, "")], -EFBIG, &[-EFBIG], Some("hello"));
    check(&[ranged(OpCode::ZERO, max, 1, "")], -EFBIG, &[-EFBIG], Some("hello"));
    let long = "n".repeat(101);
    check(&[set_xattr(&long, "v")], -ENAMETOOLONG, &[-ENAMETOOLONG], Some("hello"));
}

#[test]
fn a_failure_undoes_the_list_unless_it_may_fail() {
    let excl = OsdOp { flags: op_flag::EXCL, ..plain(OpCode::CREATE) };
    check(&[write(0, "J"), excl.clone()], -EEXIST, &[0, -EEXIST], Some("hello"));
    check(&[fail_ok(excl.clone()), write(0, "J")], 0, &[-EEXIST, 0], Some("Jello"));
    check(
        &[plain(OpCode::MASKTRUNC), write(0, "J")],
        -EOPNOTSUPP,
        &[-EOPNOTSUPP, 0],
        Some("hello"),
    );
    // Ceph 16.2 has its code and nothing behind it.
    let reset = plain(OpCode::RESETXATTRS);
    check(&[set_xattr("k", "v"), reset], -EOPNOTSUPP, &[0, -EOPNOTSUPP], Some("hello"));
    assert_eq!(Model::default().run(&[excl]).result, 0);
}

#[test]
fn reads_see_the_object_before_the_request() {
    let mut m = Model::of("hello");
    let done = m.run(&[write(0, "J"), read(0, 2), plain(OpCode::STAT)]);
    assert_eq!((done.result, done.data_offset), (0, Some(0)));
    assert!(done.outputs.iter().all(|o| o.outdata.is_empty()), "a write returns no data");
    let done = m.run(&[read(0, 2), read(1, 0), read(9, 4), plain(OpCode::STAT)]);
    assert_eq!(text(&done.outputs[0]), "Je");
    assert_eq!(text(&done.outputs[1]), "ello");
    assert_eq!(done.outputs[1].args, OpArgs::extent(1, 4));
    assert_eq!(text(&done.outputs[2]), "");
    assert_eq!(done.outputs[3].outdata.concat().len(), 16);
    assert_eq!(done.delta.num_rd, 4);
}

#[test]
fn guards_compare_and_cancel() {
    let cmp = |value: &[u8], op, mode| xattr(OpCode::CMPXATTR, "a", value, (op, mode));
    let mut m = Model::of("hello");
    m.run(&[set_xattr("a", "10")]);
    for (guard, result) in [
        (cmp(b"10", 1, 1), 1),
        (cmp(b"10", 2, 1), -ECANCELED),
        (cmp(b"9", 3, 1), 1),
        (cmp(&9u64.to_le_bytes(), 5, 2), 1),
        (cmp(&9u64.to_le_bytes(), 3, 2), -ECANCELED),
        (cmp(&10u64.to_le_bytes(), 4, 2), 1),
        (cmp(b"1", 7, 1), -EINVAL),
        (cmp(b"1", 1, 3), -EINVAL),
    ] {
        assert_eq!(m.run(&[guard]).result, result);
    }
    let done = m.run(&[cmp(b"10", 1, 1), write_full("new")]);
    assert_eq!((done.result, done.outputs[0].rval), (0, 1));
    let done = m.run(&[cmp(b"11", 1, 1), write_full("never")]);
    assert_eq!((done.result, done.change), (-ECANCELED, None));
    assert_eq!(m.data, b"new");
    let done = m.run(&[ranged(OpCode::CMPEXT, 0, 3, "nEw"), write(0, "x")]);
    assert_eq!(done.result, -MAX_ERRNO - 1);
    assert_eq!(m.run(&[ranged(OpCode::CMPEXT, 1, 4, "ew\0\0")]).result, 0);
}

#[test]
fn xattrs() {
    let mut m = Model::of("");
    m.run(&[set_xattr("b", "2"), set_xattr("a", "1")]);
    let done = m.run(&[xattr(OpCode::GETXATTR, "a", b"", (0, 0)), plain(OpCode::GETXATTRS)]);
    assert_eq!(text(&done.outputs[0]), "1");
    assert_eq!(done.outputs[1].outdata.concat(), pairs(&[("a", "1"), ("b", "2")]));
    assert_eq!(m.run(&[xattr(OpCode::GETXATTR, "c", b"", (0, 0))]).result, -ENODATA);
    assert_eq!(m.run(&[xattr(OpCode::RMXATTR, "c", b"", (0, 0))]).result, 0);
    m.run(&[xattr(OpCode::RMXATTR, "a", b"", (0, 0))]);
    assert_eq!(m.xattrs.len(), 1);
    let mut absent = Model::default();
    assert_eq!(absent.run(&[xattr(OpCode::RMXATTR, "c", b"", (0, 0))]).result, -ENOENT);
    assert_eq!(absent.run(&[set_xattr("c", "v")]).result, 0);
    assert!(absent.info.is_some());
}

#[test]
fn omap_lists_in_pages() {
    let mut m = Model::of("");
    let all: Vec<(String, String)> = (0..600).map(|i| (format!("k{i:03}"), "v".into())).collect();
    let mut input = all.to_bytes(F);
    assert_eq!(m.run(&[with_input(OpCode::OMAP_SET_VALS, &input)]).delta.num_objects_omap, 1);
    let keys = |m: &mut Model, after: &str, max: u64| {
        let mut input = after.to_owned().to_bytes(F);
        max.encode(&mut input, F);
        let raw = m.run(&[with_input(OpCode::OMAP_GET_KEYS, &input)]).outputs[0].outdata.concat();
        let n = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
        (n, raw[raw.len() - 1] != 0)
    };
    assert_eq!(keys(&mut m, "", 1024), (600, false));
    assert_eq!(keys(&mut m, "", 600), (600, false));
    assert_eq!(keys(&mut m, "", 599), (599, true));
    assert_eq!(keys(&mut m, "k500", 1024), (99, false));
    assert_eq!(keys(&mut m, "", 0), (0, true));
    input = String::new().to_bytes(F);
    7u64.encode(&mut input, F);
    "k59".encode(&mut input, F);
    let done = m.run(&[with_input(OpCode::OMAP_GET_VALS, &input)]);
    assert_eq!(done.outputs[0].outdata.concat()[..4], [7, 0, 0, 0]);
    let range = ("k100".to_owned(), "k600".to_owned()).to_bytes(F);
    m.run(&[with_input(OpCode::OMAP_RM_KEY_RANGE, &range)]);
    assert_eq!(m.omap.len(), 100);
    let rm = vec!["k000".to_owned(), "zz".to_owned()].to_bytes(F);
    m.run(&[with_input(OpCode::OMAP_RM_KEYS, &rm)]);
    assert_eq!(m.omap.len(), 99);
    assert_eq!(m.run(&[plain(OpCode::OMAP_CLEAR)]).delta.num_objects_omap, -1);
    assert_eq!(keys(&mut m, "", 9), (0, false));
}

#[test]
fn omap_values_header_and_compare() {
    let mut m = Model::of("");
    assert_eq!(m.run(&[plain(OpCode::OMAP_GET_HEADER)]).outputs[0].outdata, Vec::<Bytes>::new());
    let set = with_input(OpCode::OMAP_SET_VALS, &pairs(&[("a", "1"), ("b", "2")]));
    m.run(&[with_input(OpCode::OMAP_SET_HEADER, b"head"), set]);
    let done = m.run(&[plain(OpCode::OMAP_GET_HEADER)]);
    assert_eq!(text(&done.outputs[0]), "head");
    let keys = vec!["b".to_owned(), "x".to_owned()].to_bytes(F);
    let done = m.run(&[with_input(OpCode::OMAP_GET_VALS_BY_KEYS, &keys)]);
    assert_eq!(done.outputs[0].outdata.concat(), pairs(&[("b", "2")]));
    let cmp = |key: &str, value: &str, op: u32| {
        let mut input = 1u32.to_bytes(F);
        key.to_owned().encode(&mut input, F);
        value.to_owned().encode(&mut input, F);
        op.encode(&mut input, F);
        with_input(OpCode::OMAP_CMP, &input)
    };
    assert_eq!(m.run(&[cmp("a", "1", 1)]).result, 0);
    assert_eq!(m.run(&[cmp("a", "2", 1)]).result, -ECANCELED);
    assert_eq!(m.run(&[cmp("a", "2", 5)]).result, 0);
    assert_eq!(m.run(&[cmp("x", "", 1)]).result, 0);
    assert_eq!(m.run(&[cmp("a", "2", 9)]).result, -EINVAL);
    assert_eq!(m.run(&[with_input(OpCode::OMAP_GET_KEYS, b"\xff\xff\xff\xff")]).result, -EINVAL);
}

#[test]
fn versions_are_asserted() {
    let mut m = Model::of("");
    m.info.as_mut().unwrap().user_version = 5;
    for (version, result) in [(0u64, -EINVAL), (4, -ERANGE), (5, 0), (6, -EOVERFLOW)] {
        let args = OpArgs::AssertVer { ver: version };
        let op = OsdOp::new(OpCode::ASSERT_VER, args, Bytes::new());
        assert_eq!(m.run(&[op]).result, result);
    }
}

#[test]
fn a_write_that_changes_nothing_is_no_change() {
    let mut m = Model::default();
    let done = m.run(&[ranged(OpCode::TRUNCATE, 5, 0, "")]);
    assert_eq!((done.result, done.change), (0, None));
    assert!(m.run(&[plain(OpCode::CREATE)]).change.is_some());
    assert!(m.run(&[plain(OpCode::CREATE)]).change.is_some(), "creating again is a new version");
}

#[test]
fn a_return_vector_is_kept_and_bounded() {
    let mut m = Model::of("hello");
    let done = m.run_as(&[read(0, 5), write(0, "J")], true);
    assert_eq!((done.result, text(&done.outputs[0])), (0, "hello".to_owned()));
    m.run(&[write_full(&"x".repeat(65))]);
    let done = m.run_as(&[read(0, 65), write(0, "J")], true);
    assert_eq!((done.result, done.change), (-EOVERFLOW, None));
}

#[test]
fn truncation_sequences_order_writes() {
    let seq = |op: OsdOp, truncate_seq, truncate_size| {
        let args = Extent { truncate_seq, truncate_size, ..Extent::of(&op.args) }.into();
        OsdOp { args, ..op }
    };
    let mut m = Model::of("hello world");
    m.run(&[seq(write(0, "J"), 2, 5)]);
    assert_eq!(m.data, b"Jello");
    m.run(&[seq(write(3, "xyz"), 1, 9)]);
    assert_eq!(m.data, b"Jelxy", "an older write does not grow what was cut");
    m.run(&[seq(ranged(OpCode::TRIMTRUNC, 0, 0, ""), 3, 2)]);
    assert_eq!(m.data, b"Je");
    m.run(&[seq(ranged(OpCode::TRIMTRUNC, 0, 0, ""), 3, 1)]);
    assert_eq!(m.data, b"Je");
    assert_eq!(text(&m.run(&[seq(read(0, 9), 4, 1)]).outputs[0]), "J");
    let done = m.run(&[seq(write(0, ""), 5, 1 << 46)]);
    assert_eq!((done.result, done.change), (-EFBIG, None));
}

fn call(class: &str, method: &str, input: &[u8]) -> OsdOp {
    let (class_len, method_len) = (class.len() as u8, method.len() as u8);
    let args = OpArgs::Cls { class_len, method_len, argc: 0, indata_len: input.len() as u32 };
    let indata = [class.as_bytes(), method.as_bytes(), input].concat().into();
    OsdOp::new(OpCode::CALL, args, indata)
}

#[test]
fn methods_are_called() {
    let mut m = Model::of("hello");
    let done = m.run(&[call("hello", "say_hello", b"you"), read(0, 2)]);
    assert_eq!((done.result, text(&done.outputs[0])), (0, "Hello, you!".to_owned()));
    assert_eq!(text(&done.outputs[1]), "he");
    for (class, method, errno) in
        [("hello", "shout", EOPNOTSUPP), ("rgw", "x", EOPNOTSUPP), ("x", "say_hello", EPERM)]
    {
        assert_eq!(m.run(&[call(class, method, b"")]).result, -errno);
    }
    let too_long = fail_ok(call("hello", "say_hello", &[b'x'; 101]));
    let done = m.run(&[too_long, read(0, 1)]);
    assert_eq!((done.outputs[0].rval, text(&done.outputs[1])), (-EINVAL, "h".to_owned()));
}

#[test]
fn methods_change_their_object() {
    let mut m = Model::default();
    let record = call("hello", "record_hello", b"you");
    assert_eq!(m.run(std::slice::from_ref(&record)).result, 0);
    assert_eq!(m.data, b"Hello, you!");
    assert_eq!(m.run(&[set_xattr("a", "1"), record]).result, -EEXIST);
    assert_eq!(m.run(&[call("hello", "turn_it_to_11", b"")]).result, 0);
    assert_eq!((&m.data[..], m.xattrs.contains_key(&b"a"[..])), (&b"HELLO, YOU!"[..], false));
    assert_eq!(m.run(&[call("hello", "bad_reader", b"")]).result, -EIO);
    assert_eq!(m.run(&[call("hello", "bad_writer", b"")]).result, -EIO);
    let returning = call("hello", "write_return_data", b"");
    let done = m.run(std::slice::from_ref(&returning));
    assert_eq!((done.result, done.outputs[0].rval, text(&done.outputs[0])), (0, 42, String::new()));
    let done = m.run_as(&[returning], true);
    assert_eq!((done.result, text(&done.outputs[0])), (42, "you might see this".to_owned()));
}

#[test]
fn an_object_is_clean_until_it_changes() {
    let mut m = Model::of("hello");
    let dirty = |m: &mut Model| m.run(&[plain(OpCode::ISDIRTY)]).outputs[0].outdata.concat();
    assert_eq!(dirty(&mut m), [1]);
    let done = m.run(&[plain(OpCode::UNDIRTY)]);
    assert!(!done.change.unwrap().user_modify);
    assert_eq!(dirty(&mut m), [0]);
    assert_eq!(m.run(&[plain(OpCode::UNDIRTY)]).change, None);
    m.run(&[write(0, "J")]);
    assert_eq!(dirty(&mut m), [1]);
}

#[test]
fn tiers_and_manifests_are_refused() {
    let codes = [
        (OpCode::CACHE_FLUSH, EINVAL, EINVAL),
        (OpCode::CACHE_PIN, EINVAL, EINVAL),
        (OpCode::SET_REDIRECT, ENOENT, EINVAL),
        (OpCode::SET_CHUNK, ENOENT, EINVAL),
        (OpCode::TIER_PROMOTE, ENOENT, 0),
        (OpCode::TIER_EVICT, ENOENT, EINVAL),
        (OpCode::UNSET_MANIFEST, ENOENT, EOPNOTSUPP),
        (OpCode::SETXATTRS, EOPNOTSUPP, EOPNOTSUPP),
        (OpCode::TMAP2OMAP, ENODATA, EINVAL),
        (OpCode::STARTSYNC, 0, 0),
    ];
    for (code, absent, there) in codes {
        assert_eq!(Model::default().run(&[plain(code)]).result, -absent, "{code}");
        assert_eq!(Model::of("hello").run(&[plain(code)]).result, -there, "{code}");
    }
}

/// The table of refusals is what the documents show.
#[test]
fn what_is_refused_is_in_the_table() {
    let locator = ObjectLocator::default().to_bytes(F);
    let redirect = [&b"\x06\0\0\0target"[..], &locator].concat();
    let range = [0_u64.to_le_bytes(), 5_u64.to_le_bytes()].concat();
    let chunk = [&range[..], &locator, &b"\x06\0\0\0target"[..], &[0; 8]].concat();
    for &code in OpCode::ALL.iter().filter(|code| !code.is_pg_op()) {
        let input: &[u8] = match code {
            OpCode::SET_REDIRECT => &redirect,
            OpCode::SET_CHUNK => &chunk,
            _ => b"",
        };
        let result = Model::of("hello").run(&[with_input(code, input)]).result;
        match refusal(code) {
            Some(errno) => assert_eq!(result, -errno, "{code}"),
            // Only of what has no manifest, and without a reference.
            None if matches!(code, OpCode::UNSET_MANIFEST | OpCode::SET_CHUNK) => {
                assert_eq!(result, -EOPNOTSUPP);
            }
            None => assert_ne!(result, -EOPNOTSUPP, "{code}"),
        }
    }
}

#[test]
fn trivial_maps_are_updated() {
    let mut m = Model::default();
    let mut up = |commands: &[(u8, &str, Option<&str>)]| {
        let mut input = Vec::new();
        for (command, key, value) in commands {
            input.push(*command);
            key.encode(&mut input, F);
            value.iter().for_each(|v| v.encode(&mut input, F));
        }
        m.run(&[with_input(OpCode::TMAPUP, &input)]).result
    };
    assert_eq!(up(&[(b'r', "k", None)]), -ENOENT);
    assert_eq!(up(&[]), 0);
    assert_eq!(up(&[(b'h', "head", None), (b's', "k", Some("1")), (b'c', "l", Some("2"))]), 0);
    assert_eq!(up(&[(b'c', "l", Some("3"))]), -EEXIST);
    assert_eq!(up(&[(b'R', "none", None), (b's', "a", Some("0")), (b'r', "k", None)]), 0);
    assert_eq!(up(&[(b'?', "k", None)]), -EINVAL);
    let map = [&"head".to_owned().to_bytes(F)[..], &pairs(&[("a", "0"), ("l", "2")])].concat();
    assert_eq!(m.run(&[plain(OpCode::TMAPGET)]).outputs[0].outdata.concat(), map);
    assert_eq!(m.run(&[plain(OpCode::TMAP2OMAP)]).result, 0);
    assert_eq!((m.header.clone(), m.omap.len(), m.data.len()), ("head".into(), 2, 0));
    assert_eq!(m.run(&[with_input(OpCode::TMAPPUT, &map)]).result, 0);
    assert_eq!(m.data, map);
}

#[test]
fn an_object_is_handed_out_in_parts() {
    let mut m = Model::of("hello");
    m.run(&[set_xattr("a", "1"), with_input(OpCode::OMAP_SET_HEADER, b"head")]);
    m.run(&[with_input(OpCode::OMAP_SET_VALS, &pairs(&[("k", "v"), ("l", "w")]))]);
    let mut cursor = CopyCursor::default();
    let (mut data, mut omap, mut attrs) = (Vec::new(), Vec::new(), 0);
    for parts in 1.. {
        let mut input = cursor.to_bytes(F);
        3u64.encode(&mut input, F);
        let done = m.run(&[with_input(OpCode::COPY_GET, &input)]);
        let part = CopyData::from_bytes(&done.outputs[0].outdata.concat()).unwrap();
        assert_eq!((part.size, part.flags), (5, 0));
        data.extend_from_slice(&part.data);
        omap.extend_from_slice(part.omap_data.get(4..).unwrap_or_default());
        attrs += part.attrs.len();
        cursor = part.cursor;
        if cursor.is_complete() {
            assert_eq!(parts, 4, "two of data, then one of each key");
            break;
        }
    }
    assert_eq!((&data[..], attrs), (&b"hello"[..], 1));
    assert_eq!(omap, pairs(&[("k", "v"), ("l", "w")])[4..]);
    let mut input = CopyCursor::default().to_bytes(F);
    5u64.encode(&mut input, F);
    let done = m.run(&[with_input(OpCode::COPY_GET, &input)]);
    let part = CopyData::from_bytes(&done.outputs[0].outdata.concat()).unwrap();
    assert_eq!((part.flags, part.data_digest), (1, !crc32c::crc32c(b"hello")));
    assert_eq!(m.run(&[with_input(OpCode::COPY_GET, b"")]).result, -EINVAL);
}

#[test]
fn a_checksum_reaches_no_further_than_its_object() {
    let mut m = Model::of("123456789");
    let mut sum = |offset, length, chunk_size| {
        let args = OpArgs::Checksum { offset, length, chunk_size, type_: CRC32C };
        let done = m.run(&[OsdOp::new(OpCode::CHECKSUM, args, u32::MAX.to_bytes(F).into())]);
        (done.result, done.outputs[0].outdata.concat().len())
    };
    assert_eq!(
        [sum(0, 9, 0), sum(0, 0, 0), sum(1, 9, 0), sum(3, 9, 3)],
        [(0, 8), (0, 8), (0, 8), (0, 12)]
    );
    assert_eq!([sum(1, 9, 3), sum(0, 9, 2)], [(-EINVAL, 0); 2]);
    assert_eq!([sum(9, 1, 0), sum(90, 10, 10)], [(0, 0); 2]);
}

#[test]
fn a_rollback_changes_only_what_differs() {
    let past = |xattrs: &[(&str, &str)], header: &str, omap: Option<&[(&str, &str)]>| {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(Bytes, Bytes)> {
            let owned = |text: &str| Bytes::from(text.to_owned());
            pairs.iter().map(|(k, v)| (owned(k), owned(v))).collect()
        };
        Past {
            info: ObjectInfo { omap: omap.is_some(), ..ObjectInfo::default() },
            xattrs: pairs(xattrs),
            omap_header: header.to_owned().into(),
            omap: pairs(omap.unwrap_or_default()),
        }
    };
    let old = past(&[("a", "1"), ("c", "3")], "h", Some(&[("k", "v"), ("m", "w"), ("n", "x")]));
    let states = [
        (old.clone(), 0),
        (Past::default(), 4),
        (past(&[], "", None), 4),
        (past(&[("a", "1"), ("b", "2"), ("c", "9")], "h", Some(&[("k", "v"), ("l", "")])), 4),
        (past(&[("a", "1"), ("c", "3")], "", Some(&[("k", "v"), ("m", "w"), ("n", "x")])), 1),
    ];
    for (now, count) in states {
        for (from, to) in [(&now, &old), (&old, &now)] {
            let mut m = Model {
                xattrs: from.xattrs.iter().cloned().collect(),
                header: from.omap_header.clone(),
                omap: from.omap.iter().cloned().collect(),
                ..Model::default()
            };
            let effects = snap::difference(from.clone(), to.clone());
            assert!(to != &old || effects.len() == count, "{effects:?}");
            effects.iter().for_each(|effect| m.apply(effect));
            let found = Past {
                info: to.info.clone(),
                xattrs: m.xattrs.into_iter().collect(),
                omap_header: m.header,
                omap: m.omap.into_iter().collect(),
            };
            assert_eq!(&found, to, "{effects:?}");
        }
    }
}
