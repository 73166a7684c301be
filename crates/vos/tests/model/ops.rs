//! The naive store: containers as maps; and random operations that both it and the engine accept.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use spirula_vos::{ContainerId, ObjectKey, Tx};

/// A value of an akey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Single(Bytes),
    Array(Rc<Vec<u8>>),
}

pub(crate) type Items = BTreeMap<(Vec<u8>, Vec<u8>), Value>;
pub(crate) type Objects = BTreeMap<Vec<u8>, Items>;

/// A container's content; `None` if it does not exist.
pub(crate) type State = Option<Content>;

/// Objects, and which keys the container has: from the first up to, not including, the second.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Content {
    pub(crate) objects: Objects,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Option<Vec<u8>>,
}

impl Content {
    /// Those of the names in use that the container has.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = (0..8).map(|i| format!("object{i}").into_bytes()).collect();
        names.retain(|n| *n >= self.from && self.to.as_ref().is_none_or(|to| n < to));
        names
    }
}

/// One operation on two containers.
#[derive(Clone, Debug)]
pub(crate) enum PairOp {
    /// The objects from the key on go to the second one.
    Split(ContainerId, Vec<u8>, ContainerId),
    /// The second one ends in the first.
    Merge(ContainerId, ContainerId),
}

impl PairOp {
    pub(crate) fn add(&self, tx: &mut Tx) {
        match self {
            PairOp::Split(cid, at, upper) => {
                tx.split_container(*cid, &ObjectKey::copy_from(at), *upper);
            }
            PairOp::Merge(cid, upper) => tx.merge_container(*cid, *upper),
        }
    }

    /// Applies it to both, in the order of [`PairOp::containers`].
    pub(crate) fn apply(&self, states: &mut [State; 2]) {
        match (self, states) {
            (PairOp::Split(_, at, _), [Some(low), high]) => {
                let objects = low.objects.split_off(at);
                let to = low.to.replace(at.clone());
                *high = Some(Content { objects, from: at.clone(), to });
            }
            (PairOp::Merge(..), [Some(low), high]) => {
                let above = high.take().unwrap();
                low.objects.extend(above.objects);
                low.to = above.to;
            }
            _ => panic!("no such container"),
        }
    }
}

/// An operation on two containers that the store must accept, if there is one for these.
pub(crate) fn random_pair_op(
    cids: [ContainerId; 2],
    states: [&State; 2],
    rng: &mut ChaCha8Rng,
) -> Option<PairOp> {
    match states {
        [Some(low), None] => {
            let names = low.names();
            let at = names.get(1..).filter(|above| !above.is_empty())?;
            let at = at[rng.random_range(0..at.len())].clone();
            Some(PairOp::Split(cids[0], at, cids[1]))
        }
        [Some(low), Some(high)] if low.to.as_ref() == Some(&high.from) => {
            Some(PairOp::Merge(cids[0], cids[1]))
        }
        _ => None,
    }
}

/// One operation, for the store and the model alike.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    CreateContainer,
    DestroyContainer,
    CreateObject(Vec<u8>),
    Update(Vec<u8>, Vec<u8>, Vec<u8>, Bytes),
    Write(Vec<u8>, Vec<u8>, Vec<u8>, u64, Bytes),
    Truncate(Vec<u8>, Vec<u8>, Vec<u8>, u64),
    PunchRange(Vec<u8>, Vec<u8>, Vec<u8>, u64, u64),
    PunchAkey(Vec<u8>, Vec<u8>, Vec<u8>),
    PunchAkeys(Vec<u8>, Vec<u8>, Vec<u8>, Option<Vec<u8>>),
    PunchDkey(Vec<u8>, Vec<u8>),
    PunchObject(Vec<u8>),
}

/// Adds `op` on `cid` to a transaction.
pub(crate) fn add(tx: &mut Tx, cid: ContainerId, op: &Op) {
    let key = |o: &Vec<u8>| ObjectKey::copy_from(o);
    match op {
        Op::CreateContainer => tx.create_container(cid),
        Op::DestroyContainer => tx.destroy_container(cid),
        Op::CreateObject(o) => tx.create_object(cid, &key(o)),
        Op::Update(o, d, a, v) => tx.update(cid, &key(o), d, a, v.clone()),
        Op::Write(o, d, a, at, data) => tx.write(cid, &key(o), d, a, *at, data.clone(), None),
        Op::Truncate(o, d, a, size) => tx.truncate(cid, &key(o), d, a, *size),
        Op::PunchRange(o, d, a, at, len) => tx.punch_range(cid, &key(o), d, a, *at, *len),
        Op::PunchAkey(o, d, a) => tx.punch_akey(cid, &key(o), d, a),
        Op::PunchAkeys(o, d, from, to) => tx.punch_akeys(cid, &key(o), d, from, to.as_deref()),
        Op::PunchDkey(o, d) => tx.punch_dkey(cid, &key(o), d),
        Op::PunchObject(o) => tx.punch_object(cid, &key(o)),
    }
}

/// Applies `op` to a container.
pub(crate) fn apply(state: &mut State, op: &Op) {
    match op {
        Op::CreateContainer => *state = Some(Content::default()),
        Op::DestroyContainer => *state = None,
        _ => {
            if let Some(content) = state {
                apply_to_objects(&mut content.objects, op);
            }
        }
    }
}

fn apply_to_objects(objects: &mut Objects, op: &Op) {
    match op {
        Op::CreateContainer | Op::DestroyContainer => {}
        Op::CreateObject(o) => {
            objects.entry(o.clone()).or_default();
        }
        Op::Update(o, d, a, v) => {
            let items = objects.entry(o.clone()).or_default();
            items.insert((d.clone(), a.clone()), Value::Single(v.clone()));
        }
        Op::Write(o, d, a, at, data) => with_array(objects, o, d, a, |array| {
            let end = *at as usize + data.len();
            array.resize(array.len().max(end), 0);
            array[*at as usize..end].copy_from_slice(data);
        }),
        Op::Truncate(o, d, a, size) => {
            with_array(objects, o, d, a, |array| array.resize(*size as usize, 0));
        }
        Op::PunchRange(o, d, a, at, len) => with_array(objects, o, d, a, |array| {
            let end = (*at + *len).min(array.len() as u64) as usize;
            array[(*at as usize).min(end)..end].fill(0);
        }),
        Op::PunchAkey(o, d, a) => {
            if let Some(items) = objects.get_mut(o) {
                items.remove(&(d.clone(), a.clone()));
            }
        }
        Op::PunchAkeys(o, d, from, to) => {
            if let Some(items) = objects.get_mut(o) {
                items.retain(|(dkey, akey), _| {
                    dkey != d || akey < from || to.as_ref().is_some_and(|to| akey >= to)
                });
            }
        }
        Op::PunchDkey(o, d) => {
            if let Some(items) = objects.get_mut(o) {
                items.retain(|(dkey, _), _| dkey != d);
            }
        }
        Op::PunchObject(o) => {
            objects.remove(o);
        }
    }
}

fn with_array(objects: &mut Objects, o: &[u8], d: &[u8], a: &[u8], f: impl FnOnce(&mut Vec<u8>)) {
    let items = objects.entry(o.to_vec()).or_default();
    let value =
        items.entry((d.to_vec(), a.to_vec())).or_insert_with(|| Value::Array(Rc::default()));
    if let Value::Array(array) = value {
        f(Rc::make_mut(array));
    }
}

/// The first difference between two states, for the message of a failed test.
pub(crate) fn difference(a: &State, b: &State) -> String {
    let (Some(a), Some(b)) = (a, b) else {
        return format!("container exists: {} / {}", a.is_some(), b.is_some());
    };
    if (&a.from, &a.to) != (&b.from, &b.to) {
        return format!("keys: {:?} / {:?}", (&a.from, &a.to), (&b.from, &b.to));
    }
    let (a, b) = (&a.objects, &b.objects);
    for oid in a.keys().chain(b.keys()) {
        let (Some(x), Some(y)) = (a.get(oid), b.get(oid)) else {
            return format!("object {} is in one only", oid.escape_ascii());
        };
        for key in x.keys().chain(y.keys()) {
            match (x.get(key), y.get(key)) {
                (Some(Value::Array(x)), Some(Value::Array(y))) if x != y => {
                    let at = x.iter().zip(y.iter()).position(|(a, b)| a != b);
                    let name = oid.escape_ascii();
                    return format!("{name} {key:?}: {} / {} at {at:?}", x.len(), y.len());
                }
                (x, y) if x != y => {
                    return format!("{} {key:?}: {} / {}", oid.escape_ascii(), brief(x), brief(y));
                }
                _ => {}
            }
        }
    }
    "none".into()
}

fn brief(value: Option<&Value>) -> String {
    match value {
        None => "absent".into(),
        Some(Value::Single(v)) => format!("value of {}", v.len()),
        Some(Value::Array(a)) => format!("array of {}", a.len()),
    }
}

const DKEYS: [&[u8]; 3] = [b"array", b"omap", b"attr"];

/// One of many dkeys, with a name so long that an object soon has too many for its record.
pub(crate) fn random_dkey(rng: &mut ChaCha8Rng) -> Vec<u8> {
    format!("dkey{:042}", rng.random_range(0..30)).into_bytes()
}

/// An operation that the store must accept in this state.
pub(crate) fn random_op(state: &State, rng: &mut ChaCha8Rng) -> Op {
    let Some(content) = state else {
        return Op::CreateContainer;
    };
    if rng.random_bool(0.004) {
        return Op::DestroyContainer;
    }
    let names = content.names();
    let oid = names[rng.random_range(0..names.len())].clone();
    let omap = || b"omap".to_vec();
    let akey = |rng: &mut ChaCha8Rng| format!("key{:03}", rng.random_range(0..60)).into_bytes();
    let size = match content.objects.get(&oid).and_then(|i| i.get(&(b"array".to_vec(), vec![]))) {
        Some(Value::Array(array)) => array.len() as u64,
        _ => 0,
    };
    let array = |oid| (oid, b"array".to_vec(), Vec::new());
    match rng.random_range(0..100) {
        0..22 => {
            let len = random_len(rng);
            let (o, d, a) = array(oid);
            let offset = random_offset(size, rng);
            Op::Write(o, d, a, offset, random_bytes(len, rng))
        }
        22..42 => {
            // Appends, mostly small.
            let (o, d, a) = array(oid);
            let len = rng.random_range(1..3000);
            Op::Write(o, d, a, size.min(300_000), random_bytes(len, rng))
        }
        42..46 => {
            let (o, d, a) = array(oid);
            Op::Truncate(o, d, a, rng.random_range(0..=size + 5000).min(300_000))
        }
        46..50 => {
            let (o, d, a) = array(oid);
            let offset = random_offset(size, rng);
            Op::PunchRange(o, d, a, offset, rng.random_range(0..20_000))
        }
        50..55 => {
            let len = rng.random_range(0..150);
            Op::Update(oid, random_dkey(rng), b"_".to_vec(), random_bytes(len, rng))
        }
        55..75 => {
            let len = if rng.random_bool(0.05) { 20_000 } else { rng.random_range(0..300) };
            Op::Update(oid, omap(), akey(rng), random_bytes(len, rng))
        }
        75..80 => {
            let len = rng.random_range(0..400);
            Op::Update(oid, b"attr".to_vec(), b"_".to_vec(), random_bytes(len, rng))
        }
        80 => Op::PunchAkey(oid, random_dkey(rng), b"_".to_vec()),
        81 => Op::PunchDkey(oid, random_dkey(rng)),
        82..86 => Op::PunchAkey(oid, omap(), akey(rng)),
        86..90 => {
            let to = rng.random_bool(0.7).then(|| akey(rng));
            Op::PunchAkeys(oid, omap(), akey(rng), to)
        }
        90..92 => Op::PunchDkey(oid, DKEYS[rng.random_range(0..3)].to_vec()),
        92..94 => {
            let (o, d, a) = array(oid);
            Op::PunchAkey(o, d, a)
        }
        94..97 => Op::PunchObject(oid),
        _ => Op::CreateObject(oid),
    }
}

fn random_len(rng: &mut ChaCha8Rng) -> usize {
    match rng.random_range(0..10) {
        0..3 => rng.random_range(1..4096),
        3..7 => 4096 * rng.random_range(1..5),
        7..9 => rng.random_range(4096..40_000),
        _ => rng.random_range(100_000..400_000),
    }
}

fn random_offset(size: u64, rng: &mut ChaCha8Rng) -> u64 {
    let offset = rng.random_range(0..=(size + 8192).min(300_000));
    if rng.random_bool(0.5) { offset / 4096 * 4096 } else { offset }
}

fn random_bytes(len: usize, rng: &mut ChaCha8Rng) -> Bytes {
    let seed: u64 = rng.random();
    let mut out = Vec::with_capacity(len);
    let mut word = seed | 1;
    while out.len() < len {
        word = word.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(len);
    Bytes::from(out)
}
