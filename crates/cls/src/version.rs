//! Class `version`: a number and a tag that clients keep in an object, and conditions on them.
//!
//! The tag tells one life of the object from the next. Source of its behaviour:
//! `src/cls/version/cls_version.cc`.

use bytes::Bytes;
use spirula_wire::{Denc, Encode, Features};

use crate::coding::{input, stored};
use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::ECANCELED;
use crate::method::{Class, Method};

pub(crate) const CLASS: Class = Class {
    name: "version",
    methods: &[&[
        Method::both("set", set),
        Method::both("inc", inc),
        Method::both("inc_conds", inc),
        Method::reads("read", read),
        Method::reads("check_conds", check_conds),
    ]],
};

const XATTR: &str = "ceph.objclass.version";

/// Characters of a tag that was made here.
const TAG_LEN: usize = 24;

/// `obj_version`.
#[derive(Clone, PartialEq, Eq, Default, Denc)]
#[denc(version = 1)]
struct Version {
    number: u64,
    tag: Bytes,
}

/// `obj_version_cond`.
#[derive(Denc)]
#[denc(version = 1)]
struct Condition {
    version: Version,
    /// `VersionCond`.
    kind: u32,
}

impl Condition {
    fn holds(&self, current: &Version) -> bool {
        let (number, tag) = (self.version.number, &self.version.tag);
        match self.kind {
            1 => *current == self.version,
            2 => current.number > number,
            3 => current.number >= number,
            4 => current.number < number,
            5 => current.number <= number,
            6 => current.tag == *tag,
            7 => current.tag != *tag,
            // 0 is no condition; those unknown to Ceph are none, too.
            _ => true,
        }
    }
}

/// `cls_version_set_op` and `cls_version_read_ret`.
#[derive(Denc)]
#[denc(version = 1)]
struct VersionOp {
    version: Version,
}

/// `cls_version_inc_op` and `cls_version_check_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct ConditionsOp {
    /// Nothing looks at it.
    version: Version,
    conditions: Vec<Condition>,
}

impl ConditionsOp {
    fn check(&self, current: &Version) -> Outcome {
        if self.conditions.iter().all(|c| c.holds(current)) { Ok(()) } else { fail(ECANCELED) }
    }
}

fn set(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: VersionOp = input(bytes)?;
    store(object, &op.version)
}

fn inc(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: ConditionsOp = input(bytes)?;
    let mut version = match load(object)? {
        Some(version) => version,
        None => Version { number: 1, tag: new_tag(object) },
    };
    op.check(&version)?;
    version.number = version.number.wrapping_add(1);
    store(object, &version)
}

fn read(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let version = load(object)?.unwrap_or_default();
    VersionOp { version }.encode(out, Features::default());
    Ok(())
}

fn check_conds(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: ConditionsOp = input(bytes)?;
    op.check(&load(object)?.unwrap_or_default())
}

fn load(object: &mut dyn Context) -> Outcome<Option<Version>> {
    object.xattr(XATTR).or_absent()?.map(|bytes| stored(&bytes)).transpose()
}

fn store(object: &mut dyn Context, version: &Version) -> Outcome {
    object.set_xattr(XATTR, version.to_bytes(Features::default()).into())
}

/// Base64 characters that differ from those of any other request: Ceph draws them at random, here the
/// request's own marks are mixed, so that replicas and repeated runs agree.
fn new_tag(object: &mut dyn Context) -> Bytes {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (origin, now) = (object.origin(), object.now());
    let marks = [
        u64::from(now.sec) << 32 | u64::from(now.nsec),
        origin.name.num as u64,
        u64::from(origin.addr.nonce),
        object.user_version(),
        object.subop() as u64,
    ];
    let mut state = marks.into_iter().fold(0, |state, mark| mix(state ^ mark));
    let mut next = || {
        state = mix(state);
        ALPHABET[(state >> 58) as usize]
    };
    std::iter::repeat_with(&mut next).take(TAG_LEN).collect()
}

/// SplitMix64.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryObject;

    #[test]
    fn the_first_increment_makes_a_tag_of_its_own() {
        let input = ConditionsOp { version: Version::default(), conditions: Vec::new() };
        let input = Bytes::from(input.to_bytes(Features::default()));
        let mut tags = [1, 2].map(|sec| {
            let mut object = MemoryObject::default();
            object.now.sec = sec;
            inc(&mut object, &input, &mut Vec::new()).unwrap();
            let version = load(&mut object).unwrap().unwrap();
            assert_eq!((version.number, version.tag.len()), (2, TAG_LEN));
            version.tag
        });
        tags.sort();
        assert_ne!(tags[0], tags[1]);
    }
}
