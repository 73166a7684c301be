//! Methods of a journal's clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::Denc;

use super::types::{Client, ObjectSetPosition};
use super::{CLIENT_PREFIX, ORDER, SPLAY_WIDTH, client_key, is_there, load, reply, store, tags};
use crate::coding::{input, stored};
use crate::context::{Context, Outcome, Page, fail};
use crate::errno::{EEXIST, EINVAL};
use crate::method::Method;

pub(super) const METHODS: &[Method] = &[
    Method::reads("get_client", get_client),
    Method::both("client_register", client_register),
    Method::both("client_update_data", client_update_data),
    Method::both("client_update_state", client_update_state),
    Method::both("client_unregister", client_unregister),
    Method::both("client_commit", client_commit),
    Method::reads("client_list", client_list),
];

/// Clients that a look for the slowest one reads at a time.
const BATCH_MAX: u64 = 256;

#[derive(Denc)]
struct DataOp {
    id: Bytes,
    data: Bytes,
}

#[derive(Denc)]
struct StateOp {
    id: Bytes,
    state: u8,
}

#[derive(Denc)]
struct CommitOp {
    id: Bytes,
    commit_position: ObjectSetPosition,
}

#[derive(Denc)]
struct ListOp {
    start_after: Bytes,
    max_return: u64,
}

fn get_client(object: &mut dyn Context, bytes: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let id: Bytes = input(bytes)?;
    reply(out, &load::<Client>(object, client_key(&id))?);
    Ok(())
}

fn client_register(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: DataOp = input(bytes)?;
    load::<u8>(object, ORDER)?;
    let key = client_key(&op.id);
    if is_there(object, &key)? {
        return fail(EEXIST);
    }
    let commit_position = slowest_position(object)?;
    let (id, data) = (op.id, op.data);
    store(object, key, &Client { id, data, commit_position, state: Client::CONNECTED })
}

fn client_update_data(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: DataOp = input(bytes)?;
    update(object, &op.id, |client| client.data = op.data)
}

fn client_update_state(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: StateOp = input(bytes)?;
    update(object, &op.id, |client| client.state = op.state)
}

fn client_unregister(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let id: Bytes = input(bytes)?;
    let key = client_key(&id);
    object.omap_value(&key)?;
    object.remove_omap_key(&key)?;
    tags::expire(object, Some(&key))
}

fn client_commit(object: &mut dyn Context, bytes: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let op: CommitOp = input(bytes)?;
    let splay_width: u8 = load(object, SPLAY_WIDTH)?;
    if op.commit_position.object_positions.len() > splay_width.into() {
        return fail(EINVAL);
    }
    let key = client_key(&op.id);
    let mut client: Client = load(object, &key)?;
    if client.commit_position == op.commit_position {
        return Ok(());
    }
    client.commit_position = op.commit_position;
    store(object, key, &client)
}

fn client_list(object: &mut dyn Context, bytes: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let op: ListOp = input(bytes)?;
    let after = if op.start_after.is_empty() { Bytes::new() } else { client_key(&op.start_after) };
    let page = object.omap_values(&after, CLIENT_PREFIX.as_bytes(), op.max_return)?;
    reply(out, &by_id(&page)?.into_values().collect::<Vec<_>>());
    Ok(())
}

fn update(object: &mut dyn Context, id: &[u8], change: impl FnOnce(&mut Client)) -> Outcome {
    let key = client_key(id);
    let mut client: Client = load(object, &key)?;
    change(&mut client);
    store(object, key, &client)
}

/// Where a new client begins: at the position of the one that is most behind, or at the journal's
/// beginning when one of the last batch has not committed yet.
fn slowest_position(object: &mut dyn Context) -> Outcome<ObjectSetPosition> {
    let mut slowest = ObjectSetPosition::default();
    let mut least = None;
    let mut after = Bytes::new();
    loop {
        let page = object.omap_values(&after, CLIENT_PREFIX.as_bytes(), BATCH_MAX)?;
        for client in by_id(&page)?.into_values() {
            let Some(newest) = client.commit_position.object_positions.first() else {
                slowest = ObjectSetPosition::default();
                break;
            };
            let reached = (newest.tag_tid, newest.entry_tid);
            if least.is_none_or(|least| reached < least) {
                least = Some(reached);
                slowest = client.commit_position;
            }
        }
        match page.items.last() {
            Some((key, _)) if page.more => after = key.clone(),
            _ => return Ok(slowest),
        }
    }
}

fn by_id(page: &Page<(Bytes, Bytes)>) -> Outcome<BTreeMap<Bytes, Client>> {
    let mut clients = BTreeMap::new();
    for (_, value) in &page.items {
        let client: Client = stored(value)?;
        clients.entry(client.id.clone()).or_insert(client);
    }
    Ok(clients)
}
