//! Images of format 1: header and snapshots are the header object's data (`rbd_obj_header_ondisk`).
//!
//! ```text
//!   0  text[40]  prefix[24]  signature[4]  version[8]  options[4]
//!  80  image size u64, snap seq u64, snap count u32, unused u32, length of names u64
//! 112  per snapshot, newest first: id u64, image size u64
//!      their names in the same order, each with a NUL
//! ```

use bytes::Bytes;

use super::key;
use crate::context::{Context, Outcome, fail};
use crate::errno::{EDQUOT, EEXIST, EINVAL, EIO, ENOENT, ENXIO, ESTALE};
use crate::input::{arguments, put};
use crate::method::Method;

/// What the data begins with, and while the image migrates; a NUL follows.
const TEXT: &[u8; 33] = b"<<< Rados Block Device Image >>>\n";
const TEXT_MIGRATING: &[u8; 33] = b"<<< Migrating RBD Image      >>>\n";

const HEAD_LEN: usize = 112;
const IMAGE_SIZE: usize = 80;
const SNAP_SEQ: usize = 88;
const SNAP_COUNT: usize = 96;
const NAMES_LEN: usize = 104;
const SNAP_LEN: u64 = 16;

pub(super) const METHODS: &[Method] = &[
    Method::reads("snap_list", snap_list),
    Method::both("snap_add", snap_add),
    Method::both("snap_remove", snap_remove),
    Method::both("snap_rename", snap_rename),
];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Snap {
    id: u64,
    image_size: u64,
    name: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    head: [u8; HEAD_LEN],
    snaps: Vec<Snap>,
}

fn head(ctx: &mut dyn Context) -> Outcome<Option<[u8; HEAD_LEN]>> {
    let data = ctx.read(0, HEAD_LEN as u64)?;
    Ok(data.first_chunk().copied())
}

fn u64_at(head: &[u8; HEAD_LEN], at: usize) -> u64 {
    head[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

fn count_of(head: &[u8; HEAD_LEN]) -> u32 {
    head[SNAP_COUNT..SNAP_COUNT + 4].try_into().map_or(0, u32::from_le_bytes)
}

/// How many snapshots the header names, if the object has one.
pub(super) fn snap_count(ctx: &mut dyn Context) -> Outcome<Option<u32>> {
    Ok(head(ctx)?.as_ref().map(count_of))
}

/// Whether the header says that the image migrates; `ENXIO` when it says nothing known.
pub(super) fn is_migrating(ctx: &mut dyn Context) -> Outcome<bool> {
    let data = ctx.read(0, TEXT.len() as u64 + 1)?;
    match data.split_last() {
        Some((0, text)) if text == TEXT => Ok(false),
        Some((0, text)) if text == TEXT_MIGRATING => Ok(true),
        _ => fail(ENXIO),
    }
}

pub(super) fn set_migrating(ctx: &mut dyn Context, migrating: bool) -> Outcome {
    let text = if migrating { TEXT_MIGRATING } else { TEXT };
    ctx.write(0, Bytes::from_static(text))
}

impl Header {
    /// `EINVAL` when the object is too short to be a header, `EIO` when the parts do not fit.
    fn read(ctx: &mut dyn Context) -> Outcome<Self> {
        let Some(head) = head(ctx)? else { return fail(EINVAL) };
        let snaps_len = u64::from(count_of(&head)) * SNAP_LEN;
        let length = snaps_len.saturating_add(u64_at(&head, NAMES_LEN));
        let data = ctx.read(0, length.saturating_add(HEAD_LEN as u64))?;
        let rest = data.slice(HEAD_LEN.min(data.len())..);
        if rest.len() as u64 != length {
            return fail(EIO);
        }
        let (snaps, names) = rest.split_at(snaps_len as usize);
        let (snaps, []) = snaps.as_chunks::<{ SNAP_LEN as usize }>() else { return fail(EIO) };
        let mut names = names.split_inclusive(|byte| *byte == 0);
        let mut parse = |snap: &[u8; SNAP_LEN as usize]| {
            let (0, name) = names.next()?.split_last()? else { return None };
            let (id, image_size) = snap.split_at(8);
            let u64_of = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            let name = Bytes::copy_from_slice(name);
            Some(Snap { id: u64_of(id), image_size: u64_of(image_size), name })
        };
        let snaps: Option<Vec<_>> = snaps.iter().map(&mut parse).collect();
        match snaps {
            Some(snaps) if names.next().is_none() => Ok(Self { head, snaps }),
            _ => fail(EIO),
        }
    }

    fn write(mut self, ctx: &mut dyn Context) -> Outcome {
        let mut names = Vec::new();
        let mut snaps = Vec::new();
        for snap in &self.snaps {
            snaps.extend_from_slice(&snap.id.to_le_bytes());
            snaps.extend_from_slice(&snap.image_size.to_le_bytes());
            names.extend_from_slice(&snap.name);
            names.push(0);
        }
        let count = self.snaps.len() as u32;
        self.head[SNAP_COUNT..SNAP_COUNT + 4].copy_from_slice(&count.to_le_bytes());
        self.head[NAMES_LEN..].copy_from_slice(&(names.len() as u64).to_le_bytes());
        ctx.write_full([&self.head[..], &snaps, &names].concat().into())
    }

    fn snap_seq(&self) -> u64 {
        u64_at(&self.head, SNAP_SEQ)
    }

    fn named(&self, name: &[u8]) -> Option<usize> {
        self.snaps.iter().position(|snap| snap.name == name)
    }
}

/// A name ends where C ends it.
fn name_of(blob: &[u8]) -> Bytes {
    let end = blob.iter().position(|byte| *byte == 0).unwrap_or(blob.len());
    Bytes::copy_from_slice(&blob[..end])
}

fn snap_list(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let header = Header::read(ctx)?;
    put(out, &header.snap_seq());
    put(out, &(header.snaps.len() as u32));
    for snap in &header.snaps {
        put(out, &snap.id);
        put(out, &snap.image_size);
        put(out, &snap.name);
    }
    Ok(())
}

fn snap_add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let mut header = Header::read(ctx)?;
    let (name, id) = arguments(input, |r| Ok((name_of(r.blob("name")?), r.u64()?)))?;
    if header.snap_seq() > id {
        return fail(ESTALE);
    }
    let limit = key::find::<u64>(ctx, b"snap_limit")?.unwrap_or(u64::MAX);
    if header.snaps.len() as u64 >= limit {
        return fail(EDQUOT);
    }
    if header.named(&name).is_some() {
        return fail(EEXIST);
    }
    let image_size = u64_at(&header.head, IMAGE_SIZE);
    header.snaps.insert(0, Snap { id, image_size, name });
    header.head[SNAP_SEQ..SNAP_SEQ + 8].copy_from_slice(&id.to_le_bytes());
    header.write(ctx)
}

fn snap_remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let mut header = Header::read(ctx)?;
    let name = arguments(input, |r| Ok(name_of(r.blob("name")?)))?;
    let Some(at) = header.named(&name) else { return fail(ENOENT) };
    header.snaps.remove(at);
    header.write(ctx)
}

fn snap_rename(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let mut header = Header::read(ctx)?;
    let (id, name) = arguments(input, |r| Ok((r.u64()?, name_of(r.blob("name")?))))?;
    if header.named(&name).is_some() {
        return fail(EEXIST);
    }
    let Some(snap) = header.snaps.iter_mut().find(|snap| snap.id == id) else {
        return fail(ENOENT);
    };
    snap.name = name;
    header.write(ctx)
}
