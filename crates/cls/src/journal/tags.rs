//! Methods of a journal's tags: each entry belongs to one, and tags that no client needs expire.
//!
//! Tags have classes. What a client needs of a class is the newest tag at or before the oldest tag of
//! its commit position, and all later ones.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use spirula_wire::Denc;

use super::types::{Client, Tag};
use super::{
    CLIENT_PREFIX, NEXT_TAG_CLASS, NEXT_TAG_TID, SCAN_MAX, TAG_PREFIX, client_key, header,
    is_there, load, reply, store, tag_key,
};
use crate::coding::{input, stored};
use crate::context::{Context, Outcome, fail};
use crate::errno::{EEXIST, EINVAL, ESTALE};
use crate::method::Method;

pub(super) const METHODS: &[Method] = &[
    Method::reads("get_next_tag_tid", get_next_tag_tid),
    Method::reads("get_tag", get_tag),
    Method::both("tag_create", tag_create),
    Method::reads("tag_list", tag_list),
];

#[derive(Denc)]
struct CreateOp {
    tid: u64,
    class: u64,
    data: Bytes,
}

#[derive(Denc)]
struct ListOp {
    start_after: u64,
    max_return: u64,
    client_id: Bytes,
    class: Option<u64>,
}

fn get_next_tag_tid(object: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    header::get::<u64>(object, NEXT_TAG_TID, out)
}

fn get_tag(object: &mut dyn Context, bytes: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let tid: u64 = input(bytes)?;
    reply(out, &load::<Tag>(object, tag_key(tid))?);
    Ok(())
}

fn tag_create(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: CreateOp = input(bytes)?;
    if is_there(object, tag_key(op.tid).as_bytes())? {
        return fail(EEXIST);
    }
    if op.tid != load::<u64>(object, NEXT_TAG_TID)? {
        return fail(ESTALE);
    }
    let next_class: u64 = load(object, NEXT_TAG_CLASS)?;
    let class = if op.class == Tag::NEW_CLASS { next_class } else { op.class };
    if op.class == Tag::NEW_CLASS {
        store(object, NEXT_TAG_CLASS, &next_class.wrapping_add(1))?;
    } else if class >= next_class {
        return fail(EINVAL);
    }
    expire(object, None)?;
    store(object, NEXT_TAG_TID, &op.tid.wrapping_add(1))?;
    store(object, tag_key(op.tid), &Tag { tid: op.tid, class, data: op.data })
}

fn tag_list(object: &mut dyn Context, bytes: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let op: ListOp = input(bytes)?;
    let client: Client = load(object, client_key(&op.client_id))?;
    let needed = match client.commit_position.oldest_tag() {
        None | Some(u64::MAX) => BTreeMap::new(),
        Some(oldest) => needed_from(object, oldest, |_, _| Ok(()))?,
    };
    let mut tags = BTreeMap::new();
    scan(object, |_, _, tag| {
        if op.start_after != 0 && tag.tid <= op.start_after {
            return Ok(ControlFlow::Continue(()));
        }
        let needed = tag.tid >= needed.get(&tag.class).copied().unwrap_or(0);
        if needed && op.class.is_none_or(|class| class == tag.class) {
            tags.entry(tag.tid).or_insert(tag);
        }
        // Looked at only here: there is one tag even for a client that asks for none.
        Ok(if tags.len() as u64 >= op.max_return {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    reply(out, &tags.into_values().collect::<Vec<_>>());
    Ok(())
}

/// Removes the tags that no connected client needs; `except` is the key of a client that goes.
pub(super) fn expire(object: &mut dyn Context, except: Option<&[u8]>) -> Outcome {
    let Some(oldest) = oldest_committed(object, except)? else { return Ok(()) };
    let needed = needed_from(object, oldest, check_key)?;
    scan(object, |object, key, tag| {
        check_key(key, &tag)?;
        if tag.tid < needed.get(&tag.class).copied().unwrap_or(0) {
            object.remove_omap_key(key)?;
        }
        Ok(until(tag.tid, oldest))
    })
}

/// The oldest tag that a connected client has committed, if all have committed something.
fn oldest_committed(object: &mut dyn Context, except: Option<&[u8]>) -> Outcome<Option<u64>> {
    let mut oldest = None;
    let mut after = Bytes::new();
    loop {
        let page = object.omap_values(&after, CLIENT_PREFIX.as_bytes(), SCAN_MAX)?;
        for (key, value) in &page.items {
            if except.is_some_and(|except| key == except) {
                continue;
            }
            let client: Client = stored(value)?;
            if client.state == Client::DISCONNECTED {
                continue;
            }
            let Some(tag) = client.commit_position.oldest_tag() else { return Ok(None) };
            oldest = Some(oldest.map_or(tag, |oldest: u64| oldest.min(tag)));
        }
        match page.items.last() {
            Some((key, _)) if page.more => after = key.clone(),
            _ => return Ok(oldest.filter(|oldest| *oldest != u64::MAX)),
        }
    }
}

/// The first tag of each class that a client with this oldest tag needs.
fn needed_from(
    object: &mut dyn Context,
    oldest: u64,
    check: fn(&[u8], &Tag) -> Outcome,
) -> Outcome<BTreeMap<u64, u64>> {
    let mut needed = BTreeMap::new();
    scan(object, |_, key, tag| {
        check(key, &tag)?;
        needed.insert(tag.class, tag.tid);
        Ok(until(tag.tid, oldest))
    })?;
    Ok(needed)
}

fn until(tid: u64, oldest: u64) -> ControlFlow<()> {
    if tid >= oldest { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Visits the tags in order.
fn scan(
    object: &mut dyn Context,
    mut visit: impl FnMut(&mut dyn Context, &[u8], Tag) -> Outcome<ControlFlow<()>>,
) -> Outcome {
    let mut after = Bytes::from_static(TAG_PREFIX.as_bytes());
    loop {
        let page = object.omap_values(&after, TAG_PREFIX.as_bytes(), SCAN_MAX)?;
        for (key, value) in &page.items {
            if visit(object, key, stored(value)?)?.is_break() {
                return Ok(());
            }
        }
        match page.items.last() {
            Some((key, _)) if page.more => after = key.clone(),
            _ => return Ok(()),
        }
    }
}

/// A tag is under the key of its number.
fn check_key(key: &[u8], tag: &Tag) -> Outcome {
    if key == tag_key(tag.tid).as_bytes() { Ok(()) } else { fail(EINVAL) }
}
