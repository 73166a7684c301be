//! Class `journal`: the header of a journal (its layout, clients and tags) in an omap, and guarded
//! appends to its data objects. Source of its behaviour: `src/cls/journal/cls_journal.cc`.

mod clients;
mod data;
mod header;
mod tags;
mod types;

use bytes::Bytes;
use spirula_wire::{Decode, Encode, Features};

use crate::coding::input;
use crate::context::{Absent, Context, Outcome};
use crate::method::Class;

pub(crate) const CLASS: Class = Class {
    name: "journal",
    methods: &[header::METHODS, clients::METHODS, tags::METHODS, data::METHODS],
};

/// Entries that a scan of the omap reads at a time.
const SCAN_MAX: u64 = 64;

const ORDER: &str = "order";
const SPLAY_WIDTH: &str = "splay_width";
const POOL_ID: &str = "pool_id";
const MINIMUM_SET: &str = "minimum_set";
const ACTIVE_SET: &str = "active_set";
const NEXT_TAG_TID: &str = "next_tag_tid";
const NEXT_TAG_CLASS: &str = "next_tag_class";
const CLIENT_PREFIX: &str = "client_";
const TAG_PREFIX: &str = "tag_";

/// The value of a key; one that does not decode is `EINVAL`, as for inputs.
fn load<T: Decode>(object: &mut dyn Context, key: impl AsRef<[u8]>) -> Outcome<T> {
    input(&object.omap_value(key.as_ref())?)
}

fn is_there(object: &mut dyn Context, key: &[u8]) -> Outcome<bool> {
    Ok(object.omap_value(key).or_absent()?.is_some())
}

fn store(object: &mut dyn Context, key: impl AsRef<[u8]>, value: &impl Encode) -> Outcome {
    let key = Bytes::copy_from_slice(key.as_ref());
    object.set_omap(vec![(key, value.to_bytes(Features::default()).into())])
}

fn reply(out: &mut Vec<u8>, value: &impl Encode) {
    value.encode(out, Features::default());
}

fn client_key(id: &[u8]) -> Bytes {
    [CLIENT_PREFIX.as_bytes(), id].concat().into()
}

fn tag_key(tid: u64) -> String {
    format!("{TAG_PREFIX}{tid:016x}")
}
