//! Chunks: when their content is needed, what a write leaves of them, and whose references are given back.

use spirula_wire::types::ObjectLocator;

use super::*;
use crate::object::Chunk;

fn target(name: &str) -> HObject {
    HObject { oid: name.to_owned().into(), pool: 2, snap: SnapId::HEAD, ..HObject::default() }
}

fn chunk(name: &str, offset: u64, missing: bool) -> Chunk {
    Chunk { target: target(name), offset, length: 4, missing }
}

/// An object of 8 bytes in two chunks.
fn chunked(missing: bool) -> Model {
    let mut m = Model::of("abcdefgh");
    if missing {
        m.data.fill(0);
    }
    let chunks = [(0, chunk("a", 2, missing)), (4, chunk("b", 0, missing))].into();
    m.info.as_mut().unwrap().chunks = chunks;
    m
}

fn set_chunk(start: u64, length: u64, flags: u32) -> OsdOp {
    let mut input = (start, length).to_bytes(F);
    ObjectLocator { pool: 2, ..ObjectLocator::default() }.encode(&mut input, F);
    ("t".to_owned(), 7u64).encode(&mut input, F);
    OsdOp { flags, ..with_input(OpCode::SET_CHUNK, &input) }
}

fn contents() -> [Filled; 2] {
    [(chunk("a", 2, true), Ok("AAAA".into())), (chunk("b", 0, true), Ok("BB".into()))]
}

fn run_filled(m: &mut Model, ops: &[OsdOp], filled: &[Filled]) -> Executed {
    let may_write = OpClass::of(ops).writes;
    let request = Request { ops, may_write, filled, ..Request::default() };
    let Ok(done) = execute(&request, m);
    if let Some(change) = &done.change {
        change.effects.iter().for_each(|effect| m.apply(effect));
        m.info = change.info.clone();
    }
    done
}

#[test]
fn a_chunk_is_set_when_its_target_is_reached() {
    let referenced = op_flag::WITH_REFERENCE;
    for (op, result) in [
        (set_chunk(0, 0, referenced), -EINVAL),
        (set_chunk(5, 4, referenced), -ERANGE),
        (set_chunk(u64::MAX, 4, referenced), -ERANGE),
        (set_chunk(0, 4, 0), -EOPNOTSUPP),
        (set_chunk(3, 2, referenced), -EOPNOTSUPP),
    ] {
        let done = chunked(false).run(std::slice::from_ref(&op));
        assert_eq!((done.result, done.errand), (result, None), "{op:?}");
    }
    let ops = [set_chunk(2, 4, referenced)];
    let mut m = Model::of("abcdefgh");
    let errand = m.run(&ops).errand;
    assert!(matches!(errand, Some(Errand::Reach { op: 0, counted: true, .. })), "{errand:?}");
    for (reached, result) in [(Err(-ENOENT), -ENOENT), (Ok(target("t")), 0)] {
        let reached = [(0, reached)];
        let request =
            Request { ops: &ops, may_write: true, reached: &reached, ..Request::default() };
        let Ok(done) = execute(&request, &m);
        assert_eq!((done.result, done.errand), (result, None));
        let Some(change) = done.change else { continue };
        assert!(change.effects.is_empty() && !change.user_modify);
        assert_eq!(change.info.unwrap().chunks, [(2, chunk("t", 7, false))].into());
    }
}

#[test]
fn an_object_gives_up_what_chunks_have() {
    let evict = [plain(OpCode::TIER_EVICT)];
    let mut m = chunked(false);
    assert_eq!(m.run(&evict).result, 0);
    assert_eq!(m, chunked(true));
    // Not all of it is in chunks.
    let mut m = chunked(false);
    m.info.as_mut().unwrap().chunks.remove(&4);
    let before = m.clone();
    assert_eq!((m.run(&evict).result, m), (0, before));
}

#[test]
fn only_dirty_chunks_cannot_be_flushed() {
    let flush = [plain(OpCode::TIER_FLUSH)];
    let mut m = chunked(false);
    assert_eq!(m.run(&flush).result, -EINVAL);
    m.info.as_mut().unwrap().clean = true;
    assert_eq!(m.run(&flush).result, 0);
}

#[test]
fn what_is_missing_is_asked_for() {
    let (a, b) = (chunk("a", 2, true), chunk("b", 0, true));
    let stat = plain(OpCode::STAT);
    for (ops, wanted) in [
        (vec![read(0, 2)], vec![a.clone()]),
        (vec![read(5, 100)], vec![b.clone()]),
        (vec![read(3, 2)], vec![a.clone(), b.clone()]),
        (vec![read(0, 0)], vec![a.clone(), b.clone()]),
        (vec![read(0, 2), stat.clone()], vec![a.clone(), b.clone()]),
        (vec![stat.clone()], vec![a.clone(), b.clone()]),
        (vec![set_xattr("a", "1")], vec![a.clone(), b.clone()]),
        (vec![plain(OpCode::TIER_PROMOTE)], vec![a, b]),
        (vec![plain(OpCode::UNSET_MANIFEST)], vec![]),
        (vec![plain(OpCode::DELETE)], vec![]),
        (vec![stat.clone(), plain(OpCode::TIER_EVICT)], vec![]),
    ] {
        let done = chunked(true).run(&ops);
        let want = (!wanted.is_empty()).then_some(Errand::Fill(wanted));
        assert_eq!(done.errand, want, "{ops:?}");
    }
    let ops = [stat];
    let request = Request { ops: &ops, ignores_redirects: true, ..Request::default() };
    let Ok(done) = execute(&request, &chunked(true));
    assert_eq!(done.errand, None);
    let gone = [(chunk("a", 2, true), Err(-ENOENT)), (chunk("b", 0, true), Ok("BB".into()))];
    assert_eq!(run_filled(&mut chunked(true), &[read(0, 8)], &gone).result, -ENOENT);
}

#[test]
fn reads_see_chunks_and_writes_take_them() {
    let mut m = chunked(true);
    let done = run_filled(&mut m, &[read(2, 6), ranged(OpCode::MAPEXT, 0, 8, "")], &contents());
    assert_eq!((text(&done.outputs[0]), done.change), ("AABB\0\0".to_owned(), None));
    assert_eq!(m, chunked(true));
    let done = run_filled(&mut m, &[read(0, 3), write(5, "x")], &contents());
    let change = done.change.unwrap();
    assert_eq!(m.data, b"AAAABx\0\0");
    assert_eq!(m.info.as_ref().unwrap().chunks, [(0, chunk("a", 2, false))].into());
    assert_eq!(change.released, [target("b")]);
    // A write that changes nothing commits nothing.
    let mut m = chunked(true);
    let failing = [plain(OpCode::STAT), ranged(OpCode::WRITE, 0, 9, "x")];
    let done = run_filled(&mut m, &failing, &contents());
    assert_eq!((done.result, done.change), (-EINVAL, None));
}

#[test]
fn a_promotion_takes_what_the_targets_hold_now() {
    let mut m = chunked(false);
    let ops = [plain(OpCode::TIER_PROMOTE)];
    let [(a, content), b] = contents();
    let filled = [(Chunk { missing: false, ..a }, content), b];
    let change = run_filled(&mut m, &ops, &filled).change.unwrap();
    assert_eq!((&m.data[..], change.user_modify), (&b"AAAABBgh"[..], false));
    assert_eq!((m.info.unwrap().chunks.len(), change.released.len()), (2, 0));
}

#[test]
fn changed_chunks_give_back_their_references() {
    let zero = |offset, length| ranged(OpCode::ZERO, offset, length, "");
    let truncate = |size| ranged(OpCode::TRUNCATE, size, 0, "");
    for (op, released) in [
        (write(8, "z"), &[][..]),
        (write(3, "z"), &["a"]),
        (write(3, "zz"), &["a", "b"]),
        (write_full("abcdefgh"), &["a", "b"]),
        (write_full("k"), &["a", "b"]),
        (ranged(OpCode::APPEND, 0, 1, "z"), &[]),
        (truncate(20), &[]),
        (truncate(6), &["b"]),
        (truncate(2), &["a", "b"]),
        (zero(0, 4), &["a"]),
        (zero(4, 4), &["b"]),
        (set_xattr("a", "1"), &[]),
        (with_input(OpCode::OMAP_SET_HEADER, b"h"), &[]),
        (plain(OpCode::CREATE), &[]),
        (plain(OpCode::DELETE), &["a", "b"]),
        (plain(OpCode::UNSET_MANIFEST), &["a", "b"]),
        (plain(OpCode::TIER_EVICT), &[]),
    ] {
        let mut m = chunked(false);
        let change = m.run(std::slice::from_ref(&op)).change.unwrap();
        let names: Vec<_> = change.released.iter().map(|target| &target.oid[..]).collect();
        assert_eq!(names, released.iter().map(|n| n.as_bytes()).collect::<Vec<_>>(), "{op:?}");
        let left = m.info.map_or(0, |info| info.chunks.len());
        assert!(left == 2 - released.len() || left == 0, "{op:?}");
    }
}

#[test]
fn references_are_shared_by_neighbours() {
    let (a, b) = (chunk("a", 0, false), chunk("b", 0, false));
    let one = |chunk: &Chunk| Chunks::from([(0, chunk.clone())]);
    let none = Chunks::new();
    let missing = one(&Chunk { missing: true, ..a.clone() });
    for (gone, older, newer, lost) in [
        (one(&a), none.clone(), none.clone(), &["a"][..]),
        (one(&a), missing, none.clone(), &[]),
        (one(&a), none.clone(), one(&a), &[]),
        (one(&a), one(&b), one(&b), &["a", "b"]),
        (none.clone(), one(&b), one(&b), &["b"]),
        (none.clone(), one(&b), one(&a), &[]),
        (one(&a), Chunks::from([(4, a.clone())]), none, &["a"]),
    ] {
        let targets = lost_with(&gone, &older, &newer);
        let want: Vec<_> = lost.iter().map(|name| target(name)).collect();
        assert_eq!(targets, want, "{gone:?} between {older:?} and {newer:?}");
    }
}

#[test]
fn a_source_that_leads_elsewhere_is_followed() {
    let source = |data| Source {
        info: ObjectInfo { size: 3, ..ObjectInfo::default() },
        xattrs: Vec::new(),
        omap_header: Bytes::new(),
        omap: Vec::new(),
        data,
    };
    let ops = [plain(OpCode::COPY_FROM)];
    let led = [(0, Ok(source(SourceData::Elsewhere)))];
    let there = [(0, Ok(source(SourceData::Bytes(vec![(0, "new".into())]))))];
    let run = |sources| {
        let request = Request { ops: &ops, may_write: true, sources, ..Request::default() };
        let Ok(done) = execute(&request, &chunked(false));
        done
    };
    let done = run(&led);
    assert_eq!((done.errand, done.change), (Some(Errand::Follow { op: 0 }), None));
    let change = run(&there).change.unwrap();
    assert_eq!((change.info.unwrap().chunks.len(), change.released.len()), (0, 2));
}
