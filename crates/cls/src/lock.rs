//! Class `lock`: advisory locks of an object, each a named xattr with its lockers.
//!
//! A locker is a client with a cookie. A lock that expired is as if it were not there; an ephemeral
//! lock takes its object with it. Source of its behaviour: `src/cls/lock/cls_lock.cc`.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::types::{AddrType, EntityAddr, EntityName, UTime};
use spirula_wire::{Denc, Encode, Features};

use crate::coding::{input, stored};
use crate::context::{Absent, Context, Halt, Outcome, fail};
use crate::errno::{EBUSY, EEXIST, EINVAL, ENODATA, ENOENT};
use crate::method::{Class, Method};

pub(crate) const CLASS: Class = Class {
    name: "lock",
    methods: &[&[
        Method::both("lock", lock),
        Method::both("unlock", unlock),
        Method::both("break_lock", break_lock),
        Method::reads("get_info", get_info),
        Method::reads("list_locks", list_locks),
        Method::reads("assert_locked", assert_locked),
        Method::both("set_cookie", set_cookie),
    ]],
};

const PREFIX: &str = "lock.";

/// Taking a lock that the caller has already renews it.
const MAY_RENEW: u8 = 1;
/// Only a lock that the caller has can be taken.
const MUST_RENEW: u8 = 2;

/// `ClsLockType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
struct LockType(u8);

impl LockType {
    const EXCLUSIVE: Self = Self(1);
    const SHARED: Self = Self(2);
    /// Exclusive; the object goes with the lock.
    const EPHEMERAL: Self = Self(3);

    fn is_valid(self) -> bool {
        self == Self::SHARED || self.is_exclusive()
    }

    fn is_exclusive(self) -> bool {
        self == Self::EXCLUSIVE || self == Self::EPHEMERAL
    }
}

/// `locker_id_t`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Denc)]
#[denc(version = 1)]
struct Locker {
    name: EntityName,
    cookie: Bytes,
}

/// `locker_info_t`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1)]
struct LockerInfo {
    /// Zero: never.
    expiration: UTime,
    addr: EntityAddr,
    description: Bytes,
}

/// `lock_info_t`, and `cls_lock_get_info_reply`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1)]
struct Lock {
    lockers: BTreeMap<Locker, LockerInfo>,
    type_: LockType,
    tag: Bytes,
}

/// `cls_lock_lock_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct LockOp {
    name: String,
    type_: LockType,
    cookie: Bytes,
    tag: Bytes,
    description: Bytes,
    duration: UTime,
    flags: u8,
}

/// `cls_lock_unlock_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct UnlockOp {
    name: String,
    cookie: Bytes,
}

/// `cls_lock_break_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct BreakOp {
    name: String,
    locker: EntityName,
    cookie: Bytes,
}

/// `cls_lock_get_info_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct InfoOp {
    name: String,
}

/// `cls_lock_list_locks_reply`.
#[derive(Denc)]
#[denc(version = 1)]
struct ListReply {
    names: Vec<Bytes>,
}

/// `cls_lock_assert_op`, and the beginning of `cls_lock_set_cookie_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct AssertOp {
    name: String,
    type_: LockType,
    cookie: Bytes,
    tag: Bytes,
}

/// `cls_lock_set_cookie_op`.
#[derive(Denc)]
#[denc(version = 1)]
struct SetCookieOp {
    name: String,
    type_: LockType,
    cookie: Bytes,
    tag: Bytes,
    new_cookie: Bytes,
}

fn lock(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: LockOp = input(bytes)?;
    let (may_renew, must_renew) = (op.flags & MAY_RENEW != 0, op.flags & MUST_RENEW != 0);
    if !op.type_.is_valid() || op.name.is_empty() || may_renew && must_renew {
        return fail(EINVAL);
    }
    let mut lock = read(object, &op.name).or_absent()?.unwrap_or_default();
    let origin = object.origin();
    if !lock.lockers.is_empty() && lock.tag != op.tag {
        return fail(EBUSY);
    }
    let locker = Locker { name: origin.name, cookie: op.cookie };
    let held = lock.lockers.remove(&locker).is_some();
    if held && !may_renew && !must_renew {
        return fail(EEXIST);
    }
    if !held && must_renew {
        return fail(ENOENT);
    }
    if !lock.lockers.is_empty() && (op.type_.is_exclusive() || lock.type_ != op.type_) {
        return fail(EBUSY);
    }
    let expiration = match op.duration {
        UTime { sec: 0, nsec: 0 } => UTime::default(),
        duration => later(object.now(), duration),
    };
    // As a legacy address, whichever protocol the caller speaks: old clients can read that, too.
    let addr = origin.addr.with_type(AddrType::LEGACY);
    lock.lockers.insert(locker, LockerInfo { expiration, addr, description: op.description });
    (lock.type_, lock.tag) = (op.type_, op.tag);
    write(object, &op.name, &lock)
}

fn unlock(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: UnlockOp = input(bytes)?;
    let name = object.origin().name;
    remove(object, &op.name, &Locker { name, cookie: op.cookie })
}

fn break_lock(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: BreakOp = input(bytes)?;
    remove(object, &op.name, &Locker { name: op.locker, cookie: op.cookie })
}

fn get_info(object: &mut dyn Context, bytes: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let op: InfoOp = input(bytes)?;
    read(object, &op.name)?.encode(out, object.client_features());
    Ok(())
}

fn list_locks(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let xattrs = object.xattrs()?;
    let name =
        |xattr: &Bytes| xattr.starts_with(PREFIX.as_bytes()).then(|| xattr.slice(PREFIX.len()..));
    ListReply { names: xattrs.keys().filter_map(name).collect() }.encode(out, Features::default());
    Ok(())
}

fn assert_locked(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: AssertOp = input(bytes)?;
    held_by_caller(object, op).map(drop)
}

fn set_cookie(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: SetCookieOp = input(bytes)?;
    let name = op.name.clone();
    let held = AssertOp { name: op.name, type_: op.type_, cookie: op.cookie, tag: op.tag };
    let (mut lock, locker) = held_by_caller(object, held)?;
    let renamed = Locker { name: locker.name, cookie: op.new_cookie };
    if lock.lockers.contains_key(&renamed) {
        return fail(EBUSY);
    }
    if let Some(info) = lock.lockers.remove(&locker) {
        lock.lockers.insert(renamed, info);
    }
    write(object, &name, &lock)
}

/// The lock and the caller's entry in it, or `EBUSY`.
fn held_by_caller(object: &mut dyn Context, op: AssertOp) -> Outcome<(Lock, Locker)> {
    if !op.type_.is_valid() || op.name.is_empty() {
        return fail(EINVAL);
    }
    let lock = read(object, &op.name)?;
    let locker = Locker { name: object.origin().name, cookie: op.cookie };
    if lock.type_ != op.type_ || lock.tag != op.tag || !lock.lockers.contains_key(&locker) {
        return fail(EBUSY);
    }
    Ok((lock, locker))
}

fn remove(object: &mut dyn Context, name: &str, locker: &Locker) -> Outcome {
    let mut lock = read(object, name)?;
    if lock.lockers.remove(locker).is_none() {
        return fail(ENOENT);
    }
    if lock.type_ == LockType::EPHEMERAL { object.remove() } else { write(object, name, &lock) }
}

/// The lock without expired lockers. An object whose ephemeral lock has expired goes at once, which
/// is an error in a method that only reads.
fn read(object: &mut dyn Context, name: &str) -> Outcome<Lock> {
    let bytes = match object.xattr(&xattr_name(name)) {
        Err(Halt::Errno(ENODATA)) => return Ok(Lock::default()),
        other => other?,
    };
    let mut lock: Lock = stored(&bytes)?;
    let now = object.now();
    let never = UTime::default();
    lock.lockers.retain(|_, info| info.expiration == never || info.expiration >= now);
    if lock.lockers.is_empty() && lock.type_ == LockType::EPHEMERAL {
        object.remove()?;
    }
    Ok(lock)
}

fn write(object: &mut dyn Context, name: &str, lock: &Lock) -> Outcome {
    let value = lock.to_bytes(object.client_features());
    object.set_xattr(&xattr_name(name), value.into())
}

fn xattr_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// `from + duration`, at most the last second that can be told.
fn later(from: UTime, duration: UTime) -> UTime {
    const SECOND_NANOS: u32 = 1_000_000_000;
    let nsec = from.nsec.wrapping_add(duration.nsec);
    let sec = from.sec.saturating_add(duration.sec);
    if nsec <= SECOND_NANOS {
        return UTime { sec, nsec };
    }
    UTime { sec: sec.saturating_add(nsec / SECOND_NANOS), nsec: nsec % SECOND_NANOS }
}
