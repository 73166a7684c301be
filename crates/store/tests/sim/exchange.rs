//! Bytes and objects taken over from elsewhere in the store: clones, and export with import.

use std::rc::Rc;

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use spirula_store::{Store, StoreError};
use spirula_vos::{Anchor, ContainerId, Extent, ObjectKey, Position, Tx, Vos};

use crate::ops::{Objects, State, Value};

/// The array that clones are made of.
fn array_key() -> (Vec<u8>, Vec<u8>) {
    (b"array".to_vec(), Vec::new())
}

fn some_object(objects: &Objects, rng: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    objects.keys().nth(rng.random_range(0..objects.len().max(1))).cloned()
}

/// Adds a clone of a range of an array, if there is one in the first container.
pub(crate) fn clone(
    tx: &mut Tx,
    cids: &[ContainerId],
    states: &mut [State],
    rng: &mut ChaCha8Rng,
) -> Option<()> {
    let objects = &states.first()?.as_ref()?.objects;
    let source = some_object(objects, rng)?;
    let Some(Value::Array(bytes)) = objects.get(&source)?.get(&array_key()) else {
        return None;
    };
    let bytes = bytes.clone();
    if bytes.is_empty() {
        return None;
    }
    let last = states.len() - 1;
    let names = states[last].as_ref()?.names();
    let name = names[rng.random_range(0..names.len())].clone();
    let aligned = rng.random_bool(0.7);
    let place = |at: usize| if aligned { at / 4096 * 4096 } else { at };
    let from = place(rng.random_range(0..bytes.len()));
    let to = if rng.random_bool(0.5) { from } else { place(rng.random_range(0..300_000)) };
    let len = rng.random_range(1..=bytes.len());
    let range = bytes[from..(from + len).min(bytes.len())].to_vec();
    let position = |cid, oid, offset: usize| Position {
        cid,
        oid,
        dkey: b"array",
        akey: b"",
        offset: offset as u64,
    };
    let (a, b) = (ObjectKey::copy_from(&source), ObjectKey::copy_from(&name));
    let target = position(cids[last], &b, to);
    tx.clone_range(position(cids[0], &a, from), tx.epoch, len as u64, target);
    let items = states[last].as_mut()?.objects.entry(name).or_default();
    let value = items.entry(array_key()).or_insert_with(|| Value::Array(Rc::default()));
    if let Value::Array(array) = value {
        let (array, end) = (Rc::make_mut(array), to + range.len());
        array.resize(array.len().max(end), 0);
        array[to..end].copy_from_slice(&range);
    }
    Some(())
}

/// Adds an object of the first container to the last one, under a name that is not in use; whether it
/// did. Nothing else may be in the transaction.
pub(crate) async fn import(
    store: &Store,
    tx: &mut Tx,
    cids: &[ContainerId],
    states: &mut [State],
    rng: &mut ChaCha8Rng,
) -> Result<bool, StoreError> {
    let last = states.len() - 1;
    let (Some(from), Some(to)) = (&states[0], &states[last]) else {
        return Ok(false);
    };
    let source = some_object(&from.objects, rng);
    let free = to.names().into_iter().find(|n| !to.objects.contains_key(n));
    let (Some(source), Some(name)) = (source, free) else {
        return Ok(false);
    };
    let items = from.objects[&source].clone();
    let oid = ObjectKey::copy_from(&source);
    // What is exported is on the device.
    store.checkpoint().await?;
    let (from, start) = (cids[0], Anchor::default());
    let all = |vos: &Vos| vos.at(u64::MAX).committed().export(from, &oid, &start, usize::MAX);
    let Some(part) = store.read(all).await? else {
        panic!("{oid:?} is not there");
    };
    assert!(part.next.is_none());
    let mut data = Vec::new();
    for extent in part.data {
        data.push(Bytes::from(store.read_data(&[Extent::Device(extent)]).await?.concat()));
    }
    tx.import(cids[last], &ObjectKey::copy_from(&name), part.entries, data).unwrap();
    states[last].iter_mut().for_each(|s| drop(s.objects.insert(name.clone(), items.clone())));
    Ok(true)
}
