//! Groups of images: the directory of a pool (`rbd_group_directory`), the images and snapshots that a
//! group's own object lists, and an image's reference to its group.

mod directory;
mod image;
mod snap;

use super::{key, listing};
use crate::method::Method;

pub(super) const DIRECTORY: &[Method] = directory::METHODS;
pub(super) const IMAGE: &[Method] = image::METHODS;
pub(super) const SNAP: &[Method] = snap::METHODS;
