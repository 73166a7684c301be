//! What mirror daemons say of images: `status_global_<global id>` by the pool's own,
//! `remote_status_global_<global id>_<mirror uuid>` by those of other sites. A status is up while the daemon
//! that set it watches the object.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spirula_wire::Decode;

use super::image::{self, Image};
use super::peer::{Direction, Peer};
use super::status_types::{SiteStatus, State, Status, Stored, StoredOrigin};
use super::watchers::{self, Watchers};
use super::{key, listing};
use crate::context::{Context, Halt, Outcome, fail};
use crate::errno::ENOENT;
use crate::input::{arguments, put};
use crate::method::Method;

const LOCAL: &[u8] = b"status_global_";
const REMOTE: &[u8] = b"remote_status_global_";

pub(super) const METHODS: &[Method] = &[
    Method::both("mirror_image_status_set", set),
    Method::both("mirror_image_status_remove", remove),
    Method::reads("mirror_image_status_get", get),
    Method::reads("mirror_image_status_list", list),
    Method::reads("mirror_image_status_get_summary", summary),
    Method::both("mirror_image_status_remove_down", remove_down),
];

pub(super) fn local_key(global_id: &[u8]) -> Bytes {
    key::join(LOCAL, global_id)
}

/// What the keys of other sites begin with.
fn remote_prefix(global_id: &[u8]) -> Vec<u8> {
    [REMOTE, global_id, b"_"].concat()
}

/// Who reports of an image that is not mirrored is told nothing: the image may just have been taken out.
fn set(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let (global_id, status): (Bytes, SiteStatus) = arguments(input, Decode::decode)?;
    match image::is_enabled(ctx, &global_id) {
        Ok(true) => {}
        Ok(false) | Err(Halt::Errno(_)) => return Ok(()),
        Err(Halt::Missing) => return Err(Halt::Missing),
    }
    let key = match &status.site[..] {
        b"" => local_key(&global_id),
        site => key::join(&remote_prefix(&global_id), site),
    };
    let origin = StoredOrigin(ctx.origin().into());
    let status = SiteStatus { site: Bytes::new(), up: false, last_update: ctx.now(), ..status };
    key::write(ctx, &key, &Stored { origin, status })
}

fn remove(ctx: &mut dyn Context, input: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let global_id: Bytes = arguments(input, Decode::decode)?;
    forget(ctx, &global_id)
}

/// Removes what all sites have said of an image.
pub(super) fn forget(ctx: &mut dyn Context, global_id: &[u8]) -> Outcome {
    let prefix = remote_prefix(global_id);
    for (site, _) in listing::all(ctx, &prefix)? {
        key::remove(ctx, &key::join(&prefix, &site))?;
    }
    key::remove(ctx, &local_key(global_id))
}

fn get(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let global_id: Bytes = arguments(input, Decode::decode)?;
    let watchers = watchers::all(ctx)?;
    match read(ctx, &global_id, &watchers)? {
        Some(status) => put(out, &status),
        None => return fail(ENOENT),
    }
    Ok(())
}

/// All that is said of an image, if anything is.
fn read(ctx: &mut dyn Context, global_id: &[u8], watchers: &Watchers) -> Outcome<Option<Status>> {
    let told = |stored: Stored, site: Bytes| {
        let up = watchers.contains(&stored.origin.0);
        SiteStatus { site, up, ..stored.status }
    };
    let local = key::find(ctx, &local_key(global_id))?;
    let local = local.map(|stored| told(stored, Bytes::new()));
    let mut remote = Vec::new();
    for (site, value) in listing::all(ctx, &remote_prefix(global_id))? {
        remote.push(told(key::stored(&value)?, site));
    }
    let something = local.is_some() || !remote.is_empty();
    Ok(something.then_some(Status { local, remote }))
}

/// The images, then what is said of them; a status that cannot be read is left out.
fn list(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let (after, max): (Bytes, u64) = arguments(input, Decode::decode)?;
    let watchers = watchers::all(ctx)?;
    let mut images = BTreeMap::<Bytes, Image>::new();
    let mut statuses = BTreeMap::<Bytes, Status>::new();
    let after = key::join(image::PREFIX, &after);
    for (id, value) in listing::page(ctx, image::PREFIX, &after, max)? {
        let image: Image = key::stored(&value)?;
        match read(ctx, &image.global_id, &watchers) {
            Ok(Some(status)) => drop(statuses.insert(id.clone(), status)),
            Ok(None) | Err(Halt::Errno(_)) => {}
            Err(Halt::Missing) => return Err(Halt::Missing),
        }
        images.insert(id, image);
    }
    put(out, &images);
    put(out, &statuses);
    Ok(())
}

/// How many images are in which state. The input, if any, is the pool's peers.
fn summary(ctx: &mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome {
    let peers: Vec<Peer> =
        if input.is_empty() { Vec::new() } else { arguments(input, Decode::decode)? };
    let view = View::new(&peers);
    let watchers = watchers::all(ctx)?;
    let mut counts = BTreeMap::<State, i32>::new();
    for (_, value) in listing::all(ctx, image::PREFIX)? {
        let image: Image = key::stored(&value)?;
        let status = read(ctx, &image.global_id, &watchers)?.unwrap_or_default();
        *counts.entry(view.state(&status)).or_default() += 1;
    }
    put(out, &counts);
    Ok(())
}

/// Whose word counts for the state of an image.
struct View {
    direction: Direction,
    receivers: BTreeSet<Bytes>,
}

impl View {
    fn new(peers: &[Peer]) -> Self {
        let mut direction = peers.first().map_or(Direction::RX, |peer| peer.direction);
        let receivers = peers.iter().filter(|peer| peer.direction != Direction::RX);
        for peer in receivers.clone() {
            if peer.direction != direction {
                direction = Direction::RX_TX;
            }
        }
        Self { direction, receivers: receivers.map(|peer| peer.mirror_uuid.clone()).collect() }
    }

    /// The pool's own word where images come in, that of other sites where they go out; the least of them,
    /// but an error before all. Unknown unless everyone who should have said something has.
    fn state(&self, status: &Status) -> State {
        let local = status.local.as_ref().filter(|status| status.up).map(|status| status.state);
        match self.direction {
            Direction::RX => local.unwrap_or(State::UNKNOWN),
            Direction::RX_TX => self.remote_state(status, local),
            Direction::TX => self.remote_state(status, None),
            _ => State::UNKNOWN,
        }
    }

    fn remote_state(&self, status: &Status, local: Option<State>) -> State {
        let mut silent = self.receivers.len();
        let mut state = local;
        for remote in &status.remote {
            silent = silent.saturating_sub(self.receivers.contains(&remote.site).into());
            let said = if remote.up { remote.state } else { State::UNKNOWN };
            state = Some(match state {
                _ if remote.state == State::ERROR => State::ERROR,
                Some(State::ERROR) => State::ERROR,
                Some(state) => state.min(said),
                None => said,
            });
        }
        if silent > 0 { State::UNKNOWN } else { state.unwrap_or(State::UNKNOWN) }
    }
}

/// Removes what daemons have said that are gone.
fn remove_down(ctx: &mut dyn Context, _: &Bytes, _: &mut Vec<u8>) -> Outcome {
    let watchers = watchers::all(ctx)?;
    for prefix in [LOCAL, REMOTE] {
        for (rest, value) in listing::all(ctx, prefix)? {
            let origin: StoredOrigin = key::stored(&value)?;
            if !watchers.contains(&origin.0) {
                ctx.remove_omap_key(&key::join(prefix, &rest))?;
            }
        }
    }
    Ok(())
}
