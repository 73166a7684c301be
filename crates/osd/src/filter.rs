//! Filters of listings: which objects a PGLS_FILTER or PGNLS_FILTER shows.

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, ReadError, Vos};
use spirula_wire::{Decode, DecodeError, Denc, Reader};

use crate::apply::akey;
use crate::class::is_loaded;
use crate::errno::*;
use crate::object::{dkey, object_of_key};

/// Ceph keeps xattrs of clients under this prefix, and filters name them with it.
const XATTR_PREFIX: u8 = b'_';

/// Ends the names of CephFS's objects that carry an inode's tags: the first of each file.
const FIRST_OF_FILE: &[u8] = b".00000000";
/// Where those keep the tag that a scrub gave them, as an encoded string.
const SCRUB_TAG: &[u8] = b"scrub_tag";

/// Which objects are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Those whose xattr has one value.
    Plain { name: Bytes, value: Bytes },
    /// The first objects of files that do not carry the tag; all first objects if it is empty.
    InodeTag(Bytes),
}

/// `InodeTagFilterArgs` of CephFS's class.
#[derive(Denc)]
#[denc(version = 1)]
struct InodeTagArgs {
    tag: Bytes,
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
            b"plain" | b"hello.hello" => {
                Ok(Self::Plain { name: string(reader)?, value: string(reader)? })
            }
            b"cephfs.inode_tag" => {
                let args = InodeTagArgs::decode(reader).map_err(|_| EINVAL)?;
                Ok(Self::InodeTag(args.tag))
            }
            other => Err(refusal(other)),
        }
    }

    pub fn admits(&self, vos: &Vos, cid: ContainerId, oid: &ObjectKey) -> Result<bool, ReadError> {
        match self {
            Self::Plain { name, value } if name.is_empty() => Ok(value.is_empty()),
            Self::Plain { name, value } => match name.split_first() {
                Some((&XATTR_PREFIX, name)) => {
                    Ok(xattr(vos, cid, oid, name)?.as_ref() == Some(value))
                }
                _ => Ok(false),
            },
            Self::InodeTag(_) if !is_first_of_file(oid) => Ok(false),
            Self::InodeTag(tag) if tag.is_empty() => Ok(true),
            Self::InodeTag(tag) => {
                let found = xattr(vos, cid, oid, SCRUB_TAG)?.unwrap_or_default();
                let found = Bytes::decode(&mut Reader::new(&found)).ok();
                Ok(found.as_ref() != Some(tag))
            }
        }
    }
}

fn xattr(
    vos: &Vos,
    cid: ContainerId,
    oid: &ObjectKey,
    name: &[u8],
) -> Result<Option<Bytes>, ReadError> {
    match vos.at(u64::MAX).open(cid, oid)? {
        Some(object) => object.fetch(dkey::XATTR, &akey(name)),
        None => Ok(None),
    }
}

fn is_first_of_file(oid: &ObjectKey) -> bool {
    object_of_key(0, &oid.0).is_some_and(|o| o.oid.ends_with(FIRST_OF_FILE))
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
    use crate::object::object_key;

    #[test]
    fn filters_are_read_from_the_input() {
        let decode = |words: &[&str]| {
            let mut raw = Vec::new();
            words.iter().for_each(|w| w.encode(&mut raw, Features::PACIFIC));
            Filter::decode(&mut Reader::new(&raw))
        };
        let want = Filter::Plain { name: "_a".into(), value: "1".into() };
        assert_eq!(decode(&["pg", "filter", "plain", "_a", "1"]), Ok(want.clone()));
        assert_eq!(decode(&["pg", "filter", "hello.hello", "_a", "1"]), Ok(want));
        assert_eq!(decode(&["pg", "filter", "plain", "_a"]), Err(EINVAL));
        assert_eq!(decode(&["pg", "filter"]), Err(EINVAL));
        for (kind, errno) in [
            ("lock.x", EINVAL),
            ("none.x", EPERM),
            (".x", EINVAL),
            ("x.", EINVAL),
            ("parent", EINVAL),
        ] {
            assert_eq!(decode(&["pg", "filter", kind]), Err(errno), "{kind}");
        }
    }

    #[test]
    fn the_tag_of_inodes_is_versioned() {
        let decode = |args: &[u8]| {
            let mut raw = Vec::new();
            for word in ["pg", "filter", "cephfs.inode_tag"] {
                word.encode(&mut raw, Features::PACIFIC);
            }
            raw.extend_from_slice(args);
            Filter::decode(&mut Reader::new(&raw))
        };
        assert_eq!(decode(b"\x01\x01\x05\0\0\0\x01\0\0\0T"), Ok(Filter::InodeTag("T".into())));
        assert_eq!(decode(b"\x02\x01\x07\0\0\0\x01\0\0\0Tzz"), Ok(Filter::InodeTag("T".into())));
        for bad in
            [&b"\x01\x01\x05\0\0\0\x02\0\0\0T"[..], b"\x02\x02\x05\0\0\0\x01\0\0\0T", b"\x01", b""]
        {
            assert_eq!(decode(bad), Err(EINVAL), "{bad:?}");
        }
    }

    #[test]
    fn first_objects_of_files_end_in_zeros() {
        let is_first = |name: &[u8]| is_first_of_file(&ObjectKey(object_key(7, b"", b"", name)));
        assert!(is_first(b"a.00000000") && is_first(b".00000000"));
        assert!(!is_first(b"a.00000001") && !is_first(b"00000000") && !is_first(b"xa.000000000"));
    }
}
