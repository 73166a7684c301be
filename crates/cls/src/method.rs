//! The rows of a class's table.

use bytes::Bytes;

use crate::context::{Context, Outcome};

/// What a method does to its object; clients' flags say nothing reliable about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    pub fn reads(self) -> bool {
        self != Self::Write
    }

    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

/// Runs with the object and the input; what it appends to `out` goes to the client, also when it fails
/// after that.
pub type Run = fn(&mut dyn Context, input: &Bytes, out: &mut Vec<u8>) -> Outcome;

/// One method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub name: &'static str,
    pub access: Access,
    pub run: Run,
}

/// Rows of a table, by what Ceph registers the method as.
impl Method {
    pub const fn reads(name: &'static str, run: Run) -> Self {
        Self { name, access: Access::Read, run }
    }

    /// Changes its object without looking at it.
    pub const fn writes(name: &'static str, run: Run) -> Self {
        Self { name, access: Access::Write, run }
    }

    pub const fn both(name: &'static str, run: Run) -> Self {
        Self { name, access: Access::ReadWrite, run }
    }
}

/// One class.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    pub name: &'static str,
    /// In groups, so that a large class can have one table per file.
    pub methods: &'static [&'static [Method]],
}

impl Class {
    pub fn method(&self, name: &[u8]) -> Option<&'static Method> {
        self.methods.iter().copied().flatten().find(|method| method.name.as_bytes() == name)
    }
}
