//! Object classes: methods that run inside the OSD on one object, in the middle of a request.
//!
//! A class is a module with one table of its methods; [`CLASSES`] lists the classes. A method is a
//! function of an object seen through [`Context`] and an input: inputs, outputs, stored xattrs and
//! omap entries, and error codes are those of Ceph's `src/cls`, since clients read them directly.
//!
//! Invariants: no clock, no randomness, no I/O but through [`Context`]; input is hostile and never
//! makes a method panic or allocate by an unchecked length; a method whose row says that it only reads
//! cannot change its object.
#![forbid(unsafe_code)]

mod cas;
mod coding;
pub mod context;
#[doc(hidden)]
pub mod fuzzing;
mod hello;
mod input;
mod journal;
mod lock;
pub mod memory;
mod method;
mod numops;
mod rbd;
mod refcount;
mod version;

pub use cas::chunk_reference;
pub use context::{Context, Halt, Origin, Outcome};
pub use method::{Access, Class, Method, Run};
pub use rbd::{Settable, image_features};
pub use spirula_wire::errno;

/// Every class, in name order.
pub const CLASSES: &[Class] = &[
    cas::CLASS,
    hello::CLASS,
    journal::CLASS,
    lock::CLASS,
    numops::CLASS,
    rbd::CLASS,
    refcount::CLASS,
    version::CLASS,
];

/// The class of this name.
pub fn class(name: &[u8]) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(CLASSES.windows(2).all(|w| w[0].name < w[1].name));
        for class in CLASSES {
            let mut names: Vec<_> =
                class.methods.iter().copied().flatten().map(|m| m.name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|w| w[0] < w[1]), "{}", class.name);
        }
    }
}
