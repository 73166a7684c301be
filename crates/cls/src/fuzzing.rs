//! The entry point of the fuzz target of class methods; it must return for any input.

use bytes::Bytes;
use spirula_wire::{DecodeError, Reader};

use crate::class;
use crate::memory::MemoryObject;

/// What is done to the object: a kind in one byte, names behind a length of one byte, values behind one of
/// two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    Call { class: &'a [u8], method: &'a [u8], input: &'a [u8] },
    SetOmap { key: &'a [u8], value: &'a [u8] },
    SetXattr { name: &'a [u8], value: &'a [u8] },
    SetData { value: &'a [u8] },
}

impl<'a> Step<'a> {
    /// Appends the step; names and values that are too long are cut.
    pub fn put(&self, out: &mut Vec<u8>) {
        let (kind, names, value): (_, &[&[u8]], _) = match self {
            Self::Call { class, method, input } => (0, &[*class, *method], input),
            Self::SetOmap { key, value } => (1, &[*key], value),
            Self::SetXattr { name, value } => (2, &[*name], value),
            Self::SetData { value } => (3, &[], value),
        };
        out.push(kind);
        for name in names {
            let name = &name[..name.len().min(u8::MAX.into())];
            out.push(name.len() as u8);
            out.extend_from_slice(name);
        }
        let value = &value[..value.len().min(u16::MAX.into())];
        out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        out.extend_from_slice(value);
    }

    fn take(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        fn name<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
            let len = r.u8()?;
            r.take(len.into(), "name")
        }
        fn value<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
            let len = r.u16()?;
            r.take(len.into(), "value")
        }
        Ok(match r.u8()? % 4 {
            0 => Self::Call { class: name(r)?, method: name(r)?, input: value(r)? },
            1 => Self::SetOmap { key: name(r)?, value: value(r)? },
            2 => Self::SetXattr { name: name(r)?, value: value(r)? },
            _ => Self::SetData { value: value(r)? },
        })
    }
}

/// Plays steps on one object.
pub fn methods(data: &[u8]) {
    let mut object = MemoryObject::default();
    let mut r = Reader::new(data);
    while let Ok(step) = Step::take(&mut r) {
        object.exists |= !matches!(step, Step::Call { .. });
        match step {
            Step::Call { class, method, input } => call(&mut object, class, method, input),
            Step::SetOmap { key, value } => drop(object.omap.insert(own(key), own(value))),
            Step::SetXattr { name, value } => drop(object.xattrs.insert(own(name), own(value))),
            Step::SetData { value } => object.data = value.to_vec(),
        }
    }
}

fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// As in a request: what a method that fails has changed does not stay.
fn call(object: &mut MemoryObject, class_name: &[u8], method: &[u8], input: &[u8]) {
    let Some(method) = class(class_name).and_then(|class| class.method(method)) else { return };
    if method.name == "object_map_resize" && is_large(input) {
        return;
    }
    let mut changed = object.clone();
    if (method.run)(&mut changed, &own(input), &mut Vec::new()).is_ok() {
        *object = changed;
    }
}

/// The map of the largest image is in order, but takes more memory than a target may hold.
fn is_large(input: &[u8]) -> bool {
    Reader::new(input).u64().is_ok_and(|objects| objects > 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_back() {
        let steps = [
            Step::Call { class: b"c", method: b"", input: b"input" },
            Step::SetOmap { key: b"k", value: b"" },
            Step::SetXattr { name: b"n", value: b"v" },
            Step::SetData { value: b"d" },
        ];
        let mut bytes = Vec::new();
        steps.iter().for_each(|step| step.put(&mut bytes));
        let mut r = Reader::new(&bytes);
        assert!(steps.iter().all(|step| Step::take(&mut r) == Ok(*step)));
        assert!(r.is_empty());
    }
}
