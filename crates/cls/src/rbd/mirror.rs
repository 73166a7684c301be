//! Mirroring of a pool: object `rbd_mirroring` holds mode, peers, the mirrored images and what the
//! mirror daemons say of them; `rbd_mirror_leader` which daemon has which image.

mod image;
mod map;
mod peer;
mod pool;
mod snap;
mod status;
mod status_types;
mod watchers;

use super::{key, listing, uuid};
use crate::method::Method;

pub(super) const POOL: &[Method] = pool::METHODS;
pub(super) const PEER: &[Method] = peer::METHODS;
pub(super) const IMAGE: &[Method] = image::METHODS;
pub(super) const STATUS: &[Method] = status::METHODS;
pub(super) const INSTANCE: &[Method] = watchers::METHODS;
pub(super) const MAP: &[Method] = map::METHODS;
pub(super) const SNAP: &[Method] = snap::METHODS;
