//! Class `rbd`: everything about block images that clients leave to the OSD.
//!
//! Source of its behaviour: `src/cls/rbd/cls_rbd.cc` and the types beside it. The objects are an
//! image's header (`rbd_header.<id>`, or `<name>.rbd` of format 1), its name (`rbd_id.<name>`),
//! object maps and data, and those of a pool: `rbd_directory`, `rbd_children`, `rbd_trash`,
//! `rbd_mirroring`, `rbd_namespace`, groups. Names and ids are bytes: nothing says that they are
//! UTF-8.

mod bit_vector;
mod children;
mod data;
mod directory;
mod feature;
mod format1;
mod group;
mod image;
mod key;
mod listing;
mod metadata;
mod migration;
mod mirror;
mod namespace;
mod object_map;
mod parent;
mod snap;
mod trash;
mod types;
mod uuid;

use crate::method::Class;
pub use feature::{Settable, image_features};

pub(crate) const CLASS: Class = Class {
    name: "rbd",
    methods: &[
        image::METHODS,
        feature::METHODS,
        snap::METHODS,
        parent::METHODS,
        children::METHODS,
        metadata::METHODS,
        migration::METHODS,
        format1::METHODS,
        directory::METHODS,
        object_map::METHODS,
        data::METHODS,
        group::DIRECTORY,
        group::IMAGE,
        group::SNAP,
        mirror::POOL,
        mirror::PEER,
        mirror::IMAGE,
        mirror::STATUS,
        mirror::INSTANCE,
        mirror::MAP,
        mirror::SNAP,
        namespace::METHODS,
        trash::METHODS,
    ],
};
