//! Class `rbd`: everything about block images that clients leave to the OSD.
//!
//! Source of its behaviour: `src/cls/rbd/cls_rbd.cc` and the types beside it. The objects are an
//! image's header (`rbd_header.<id>`, or `<name>.rbd` of format 1), its name (`rbd_id.<name>`),
//! object maps and data, and those of a pool: `rbd_directory`, `rbd_children`, `rbd_trash`,
//! `rbd_mirroring`, `rbd_namespace`, groups. Names and ids are bytes: nothing says that they are
//! UTF-8.

mod key;
mod uuid;

use crate::method::Class;

pub(crate) const CLASS: Class = Class { name: "rbd", methods: &[] };
