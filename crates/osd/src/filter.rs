//! Filters of listings: which objects a PGLS_FILTER or PGNLS_FILTER shows.

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, ReadError, Vos};
use spirula_wire::{Decode, DecodeError, Reader};

use crate::apply::akey;
use crate::class::is_loaded;
use crate::errno::*;
use crate::object::dkey;

/// Ceph keeps xattrs of clients under this prefix, and filters name them with it.
const XATTR_PREFIX: u8 = b'_';

/// Shows objects whose xattr has one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    name: Bytes,
    value: Bytes,
}

impl Filter {
    /// The filter at the start of an operation's input: class and method, which mean nothing, the
    /// filter's type and its parameters. Errors are positive.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, i32> {
        let string = |reader: &mut Reader<'_>| -> Result<Bytes, i32> {
            Bytes::decode(reader).map_err(|_: DecodeError| EINVAL)
        };
        let _class = (string(reader)?, string(reader)?);
        let kind = string(reader)?;
        match &kind[..] {
            b"plain" | b"hello.hello" => Ok(Self { name: string(reader)?, value: string(reader)? }),
            other => Err(refusal(other)),
        }
    }

    pub fn admits(&self, vos: &Vos, cid: ContainerId, oid: &ObjectKey) -> Result<bool, ReadError> {
        if self.name.is_empty() {
            return Ok(self.value.is_empty());
        }
        let Some((&XATTR_PREFIX, name)) = self.name.split_first() else {
            return Ok(false);
        };
        let Some(object) = vos.at(u64::MAX).open(cid, oid)? else {
            return Ok(false);
        };
        Ok(object.fetch(dkey::XATTR, &akey(name))? == Some(self.value.clone()))
    }
}

/// Why there is no filter of this type: those of classes are named `CLASS.FILTER`.
fn refusal(kind: &[u8]) -> i32 {
    let dot = kind.iter().position(|b| *b == b'.').filter(|at| *at > 0 && at + 1 < kind.len());
    match dot {
        Some(at) if !is_loaded(&kind[..at]) => EPERM,
        _ => EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use spirula_wire::{Encode, Features};

    use super::*;

    #[test]
    fn filters_are_read_from_the_input() {
        let decode = |words: &[&str]| {
            let mut raw = Vec::new();
            words.iter().for_each(|w| w.encode(&mut raw, Features::PACIFIC));
            Filter::decode(&mut Reader::new(&raw))
        };
        let want = Filter { name: "_a".into(), value: "1".into() };
        assert_eq!(decode(&["pg", "filter", "plain", "_a", "1"]), Ok(want.clone()));
        assert_eq!(decode(&["pg", "filter", "hello.hello", "_a", "1"]), Ok(want));
        assert_eq!(decode(&["pg", "filter", "plain", "_a"]), Err(EINVAL));
        assert_eq!(decode(&["pg", "filter"]), Err(EINVAL));
        for (kind, errno) in
            [("lock.x", EINVAL), ("none.x", EPERM), (".x", EINVAL), ("x.", EINVAL), ("x", EINVAL)]
        {
            assert_eq!(decode(&["pg", "filter", kind]), Err(errno), "{kind}");
        }
    }
}
