//! Snapshots in an image's header: one omap entry each, and the newest id (`snap_seq`).

use bytes::Bytes;

use super::feature::{self, op};
use super::types::{HEAD, Parent, SNAP_MAX, Snap, SnapInfo, SnapNamespace};
use super::{format1, key, uuid};
use crate::context::{Absent, Context, Outcome, fail};
use crate::errno::{EBUSY, EDQUOT, EEXIST, EINVAL, ERANGE, ESTALE};
use crate::input::{arguments, put};
use crate::method::Method;

const PREFIX: &[u8] = b"snapshot_";
/// No snapshot limit; stored as no key.
const UNLIMITED: u64 = u64::MAX;

pub(super) const METHODS: &[Method] = &[
    Method::reads("get_snapcontext", get_snapcontext),
    Method::reads("get_snapshot_name", get_snapshot_name),
    Method::reads("get_snapshot_timestamp", get_snapshot_timestamp),
    Method::reads("snapshot_get", snapshot_get),
    Method::both("snapshot_add", snapshot_add),
    Method::both("snapshot_remove", snapshot_remove),
    Method::both("snapshot_rename", snapshot_rename),
    Method::both("snapshot_trash_add", snapshot_trash_add),
    Method::reads("snapshot_get_limit", snapshot_get_limit),
    Method::both("snapshot_set_limit", snapshot_set_limit),
];

fn entry_key(id: u64) -> Bytes {
    key::join(PREFIX, format!("{id:016x}").as_bytes())
}

/// The id in a key; as Ceph reads it, what is no number counts as 0.
fn id_of(key: &[u8]) -> u64 {
    let digits = key[PREFIX.len()..].iter().map_while(|byte| char::from(*byte).to_digit(16));
    let add = |id: u64, digit: u32| Some(id.checked_mul(16)? + u64::from(digit));
    digits.into_iter().try_fold(0, add).unwrap_or(u64::MAX)
}

/// The entry of snapshot `id`; `ENOENT` when there is none.
pub(super) fn read(ctx: &mut dyn Context, id: u64) -> Outcome<Snap> {
    key::read(ctx, &entry_key(id))
}

/// Stores the entry of snapshot `id`. An entry that still names its parent hands it to the header.
pub(super) fn write(ctx: &mut dyn Context, id: u64, mut snap: Snap) -> Outcome {
    if snap.parent.spec.exists() {
        let stored = key::find::<Parent>(ctx, b"parent")?.unwrap_or_default();
        if !stored.spec.exists() {
            let spec = snap.parent.spec.clone();
            key::write(ctx, b"parent", &Parent { spec, head_overlap: None })?;
        }
        snap.parent_overlap = snap.parent.head_overlap;
        snap.parent = Parent::default();
    }
    key::write(ctx, &entry_key(id), &snap)
}

/// Calls `visit` with every snapshot, oldest first.
pub(super) fn each(
    ctx: &mut dyn Context,
    mut visit: impl FnMut(&mut dyn Context, Snap) -> Outcome,
) -> Outcome {
    key::scan(ctx, PREFIX, PREFIX, |ctx, _, value| {
        visit(ctx, key::stored(value)?)?;
        Ok(true)
    })
}

/// Whether `test` holds for any snapshot; every entry must decode.
pub(super) fn any(ctx: &mut dyn Context, test: impl Fn(&Snap) -> bool) -> Outcome<bool> {
    let mut found = false;
    each(ctx, |_, snap| {
        found |= test(&snap);
        Ok(())
    })?;
    Ok(found)
}

fn ids(ctx: &mut dyn Context) -> Outcome<Vec<u64>> {
    let mut ids = Vec::new();
    let mut after = Bytes::from_static(PREFIX);
    loop {
        let page = ctx.omap_keys(&after, key::PAGE).or_absent()?.unwrap_or_default();
        let ours = page.items.iter().take_while(|key| key.starts_with(PREFIX));
        let before = ids.len();
        ids.extend(ours.map(|key| id_of(key)));
        match page.items.last() {
            Some(last) if page.more && ids.len() - before == page.items.len() => {
                after = last.clone();
            }
            _ => return Ok(ids),
        }
    }
}

fn get_snapcontext(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let mut ids = ids(ctx)?;
    let newest: u64 = key::read(ctx, b"snap_seq")?;
    // Newest first, as snap contexts are.
    ids.reverse();
    put(out, &newest);
    put(out, &ids);
    Ok(())
}

/// The snapshot whose id is the input.
fn chosen(ctx: &mut dyn Context, input: &Bytes) -> Outcome<Snap> {
    match arguments(input, |r| r.u64())? {
        HEAD => fail(EINVAL),
        id => read(ctx, id),
    }
}

fn get_snapshot_name(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &chosen(ctx, input)?.name);
    Ok(())
}

fn get_snapshot_timestamp(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &chosen(ctx, input)?.timestamp);
    Ok(())
}

fn snapshot_get(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &SnapInfo::from(chosen(ctx, input)?));
    Ok(())
}

fn snapshot_add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let mut snap = arguments(input, |r| {
        let mut snap = Snap { name: r.blob("name")?.to_vec().into(), ..Snap::default() };
        snap.id = r.u64()?;
        if !r.is_empty() {
            snap.namespace = spirula_wire::Decode::decode(r)?;
        }
        Ok(snap)
    })?;
    if snap.namespace == SnapNamespace::Unknown || snap.id > SNAP_MAX {
        return fail(EINVAL);
    }
    // Whoever got an older id has lost a race.
    if snap.id < key::read::<u64>(ctx, b"snap_seq")? {
        return fail(ESTALE);
    }
    snap.image_size = key::read(ctx, b"size")?;
    snap.flags = key::find::<u64>(ctx, b"flags")?.unwrap_or_default();
    snap.timestamp = ctx.now();
    require_new(ctx, &snap)?;
    snap.parent = key::find(ctx, b"parent")?.unwrap_or_default();
    if snap.namespace.is_trash() {
        feature::set_op(ctx, op::SNAP_TRASH, op::SNAP_TRASH)?;
    }
    key::write(ctx, b"snap_seq", &snap.id)?;
    write(ctx, snap.id, snap)
}

/// `EDQUOT` at the limit, `EEXIST` when a snapshot has its id or name.
fn require_new(ctx: &mut dyn Context, new: &Snap) -> Outcome {
    let limit = key::find::<u64>(ctx, b"snap_limit")?.unwrap_or(UNLIMITED);
    let mut count = 0;
    each(ctx, |_, old| {
        count += 1;
        if count >= limit {
            return fail(EDQUOT);
        }
        let same_name = new.name == old.name && new.namespace.same(&old.namespace);
        if same_name || new.id == old.id { fail(EEXIST) } else { Ok(()) }
    })
}

fn snapshot_rename(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (id, name) = arguments(input, |r| Ok((r.u64()?, r.blob("name")?)))?;
    each(
        ctx,
        |_, snap| {
            if snap.namespace.is_user() && snap.name == name { fail(EEXIST) } else { Ok(()) }
        },
    )?;
    let mut snap = read(ctx, id)?;
    if !snap.namespace.is_user() {
        return fail(EINVAL);
    }
    snap.name = Bytes::copy_from_slice(name);
    write(ctx, id, snap)
}

/// A snapshot that may go: neither protected nor the parent of a clone.
fn removable(ctx: &mut dyn Context, id: u64) -> Outcome<Snap> {
    let snap = read(ctx, id)?;
    if snap.protection != 0 { fail(EBUSY) } else { Ok(snap) }
}

fn snapshot_remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    if removable(ctx, id)?.child_count > 0 {
        return fail(EBUSY);
    }
    let (mut clones, mut trash) = (false, false);
    each(ctx, |_, other| {
        if other.id != id {
            clones |= other.has_parent();
            trash |= other.namespace.is_trash();
        }
        Ok(())
    })?;
    key::remove(ctx, &entry_key(id))?;
    let parent = key::find::<Parent>(ctx, b"parent")?.filter(|parent| parent.spec.exists());
    let head_is_clone = parent.as_ref().is_some_and(|parent| parent.head_overlap.is_some());
    if parent.is_some() && !head_is_clone && !clones {
        key::remove(ctx, b"parent")?;
    }
    let mut unused = 0;
    if !clones && !head_is_clone {
        unused |= op::CLONE_CHILD;
    }
    if !trash {
        unused |= op::SNAP_TRASH;
    }
    if unused == 0 { Ok(()) } else { feature::set_op(ctx, 0, unused) }
}

fn snapshot_trash_add(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id = arguments(input, |r| r.u64())?;
    let mut snap = removable(ctx, id)?;
    if snap.namespace.is_trash() {
        return fail(EEXIST);
    }
    feature::set_op(ctx, op::SNAP_TRASH, op::SNAP_TRASH)?;
    let salt = [&id.to_le_bytes()[..], &snap.name].concat();
    let name = uuid::fresh(ctx, &salt).into();
    let original_name = std::mem::replace(&mut snap.name, name);
    snap.namespace = SnapNamespace::Trash { original_name, original_type: snap.namespace.number() };
    write(ctx, id, snap)
}

fn snapshot_get_limit(ctx: &mut dyn Context, _: &Bytes, out: &mut Vec<u8>) -> Outcome {
    put(out, &key::find::<u64>(ctx, b"snap_limit")?.unwrap_or(UNLIMITED));
    Ok(())
}

fn snapshot_set_limit(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let limit = arguments(input, |r| r.u64())?;
    if limit == UNLIMITED {
        return ctx.remove_omap_key(b"snap_limit");
    }
    let count = match format1::snap_count(ctx)? {
        Some(count) => count.into(),
        None => ids(ctx)?.len() as u64,
    };
    if limit < count {
        return fail(ERANGE);
    }
    key::write(ctx, b"snap_limit", &limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryObject;

    /// The entry as Ceph stores it, but for the name, which is another UUID each time.
    #[test]
    fn a_snapshot_in_the_trash_keeps_its_name() {
        let mut header = MemoryObject::default();
        key::write(&mut header, b"features", &1u64).unwrap();
        let entry = Snap { id: 7, name: Bytes::from_static(b"mine"), ..Snap::default() };
        write(&mut header, 7, entry).unwrap();
        let id = Bytes::copy_from_slice(&7u64.to_le_bytes());
        snapshot_trash_add(&mut header, &id, &mut Vec::new()).unwrap();

        let stored = header.omap[&entry_key(7)].to_vec();
        let at = stored.windows(4).position(|bytes| bytes == b"mine").unwrap();
        let namespace =
            [&[1, 1, 16, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0][..], b"mine", &[0; 4]].concat();
        assert_eq!(stored[at - 14..at + 8], namespace);
        assert_eq!(read(&mut header, 7).unwrap().name.len(), 36);
        assert_eq!(header.omap[&b"op_features"[..]][..], op::SNAP_TRASH.to_le_bytes());
        let shown = key::read::<u64>(&mut header, b"features").unwrap();
        assert_eq!(shown, feature::LAYERING | feature::OPERATIONS);
        assert_eq!(snapshot_trash_add(&mut header, &id, &mut Vec::new()), fail(EEXIST));
    }
}
