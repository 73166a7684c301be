//! What `copy-get` answers: an object in parts, from a cursor on.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::Denc;
use crate::types::{RequestId, SnapId, UTime};

/// `object_copy_cursor_t`: how far a copy is.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct CopyCursor {
    pub attr_complete: bool,
    pub data_offset: u64,
    pub data_complete: bool,
    /// The last omap key that was copied.
    pub omap_offset: Bytes,
    pub omap_complete: bool,
}

impl CopyCursor {
    pub fn is_complete(&self) -> bool {
        self.attr_complete && self.data_complete && self.omap_complete
    }
}

/// `object_copy_data_t`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 8, compat = 5)]
pub struct CopyData {
    pub size: u64,
    pub mtime: UTime,
    pub attrs: BTreeMap<Bytes, Bytes>,
    pub data: Bytes,
    /// A counted list of keys and values; nothing if there are none.
    pub omap_data: Bytes,
    pub cursor: CopyCursor,
    pub omap_header: Bytes,
    pub snaps: Vec<SnapId>,
    pub snap_seq: SnapId,
    /// Which of the digests are known.
    pub flags: u32,
    pub data_digest: u32,
    pub omap_digest: u32,
    /// Requests that changed the object, with its version after them.
    pub reqids: Vec<(RequestId, u64)>,
    #[denc(since = 7)]
    pub truncate_seq: u32,
    #[denc(since = 7)]
    pub truncate_size: u64,
    /// Results of those of the requests that failed, by their place in the list.
    #[denc(since = 8)]
    pub reqid_return_codes: BTreeMap<u32, i32>,
}

impl CopyData {
    /// Flag: `data_digest` is the CRC-32C of all data, without its last inversion.
    pub const DATA_DIGEST: u32 = 1;
    /// [`Self::omap_digest`] is known: header, keys and values as they are encoded.
    pub const OMAP_DIGEST: u32 = 2;
}

/// `-1` stands for what is not known.
impl Default for CopyData {
    fn default() -> Self {
        Self {
            size: u64::MAX,
            mtime: UTime::default(),
            attrs: BTreeMap::new(),
            data: Bytes::new(),
            omap_data: Bytes::new(),
            cursor: CopyCursor::default(),
            omap_header: Bytes::new(),
            snaps: Vec::new(),
            snap_seq: SnapId::default(),
            flags: 0,
            data_digest: u32::MAX,
            omap_digest: u32::MAX,
            reqids: Vec::new(),
            truncate_seq: 0,
            truncate_size: 0,
            reqid_return_codes: BTreeMap::new(),
        }
    }
}

/// `scrub_ls_arg_t`: which errors of which objects a scrub found.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct ScrubListArgs {
    /// The PG's interval that the listing began in, 0 for any.
    pub interval: u32,
    pub get_snapsets: u32,
    /// Name, namespace and snapshot.
    pub start_after: (Bytes, (Bytes, u64)),
    pub max_return: u64,
}

/// `scrub_ls_result_t`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct ScrubList {
    pub interval: u32,
    pub values: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decode, Encode, Features};

    /// As much as Debian's `rados list-inconsistent-obj` sends.
    #[test]
    fn questions_about_scrubs_have_ceph_s_size() {
        assert_eq!(ScrubListArgs::default().to_bytes(Features::PACIFIC).len(), 38);
    }

    /// The start and the end of what a 16.2.15 OSD answered about an object of 11 bytes.
    #[test]
    fn copied_data_is_laid_out_as_by_ceph() {
        let data = CopyData {
            size: 11,
            attrs: [("a".into(), "1".into()), ("b".into(), "2".into())].into(),
            data: "hello world".into(),
            cursor: CopyCursor {
                attr_complete: true,
                data_offset: 11,
                data_complete: true,
                omap_complete: true,
                ..CopyCursor::default()
            },
            omap_header: "head".into(),
            ..CopyData::default()
        };
        let raw = data.to_bytes(Features::PACIFIC);
        let mut want = b"\x08\x05\x86\0\0\0\x0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x01\0\0\0a\x01\0\0\0\
            1\x01\0\0\0b\x01\0\0\x002\x0b\0\0\0hello world\0\0\0\0\x01\x01\x0f\0\0\0\x01\x0b\0\0\0\0\0\0\0\x01\
            \0\0\0\0\x01\x04\0\0\0head\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"
            .to_vec();
        want.extend_from_slice(&[0; 4 + 4 + 8 + 4]);
        assert_eq!(raw[6..], want[6..]);
        assert_eq!(CopyData::from_bytes(&raw), Ok(data));
    }
}
