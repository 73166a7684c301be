//! Objects read as a client reads them: sources of COPY_FROM that are on other targets, or lead there.
//!
//! What is said of the object's version in the first answer is asserted by all later requests, so that the
//! copy is of one state.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, flag};
use spirula_wire::types::{CopyCursor, CopyData, HObject};
use spirula_wire::{Decode, Encode, Features};
use spirula_xstream::timeout;

use crate::errno::*;
use crate::object::ObjectInfo;
use crate::pg::Pg;
use crate::plan::{Source, SourceData};
use crate::proxy::{Asking, Unanswered};
use crate::target::Target;

const F: Features = Features::PACIFIC;
/// Bytes asked for at a time (`osd_copyfrom_max_chunk`).
const CHUNK: u64 = 8 << 20;
/// The client asks again if there is no answer to a part by then: objects are locked meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// The whole object, of user version `version` if that is not 0, for a request to `pg`. Errors are
/// negative.
pub async fn fetch(
    target: &Target,
    pg: &Pg,
    object: &HObject,
    mut version: u64,
) -> Result<Source, i32> {
    let mut whole = Whole::default();
    while !whole.cursor.is_complete() {
        let asking = Asking::begin(target, object.clone(), request(object, version, &whole.cursor));
        let reply = match timeout(PATIENCE, pin!(asking.answer(pg))).await {
            Ok(Ok(reply)) if reply.result < 0 => return Err(reply.result),
            Ok(Ok(reply)) => reply,
            Ok(Err(Unanswered::Errno(errno))) => return Err(errno),
            Ok(Err(Unanswered::Dropped)) | Err(_) => return Err(-EAGAIN),
        };
        let raw = reply.ops.last().map(|op| op.outdata.concat()).unwrap_or_default();
        whole.add(CopyData::from_bytes(&raw).map_err(|_| -EIO)?)?;
        version = reply.user_version;
    }
    whole.source(version)
}

fn request(object: &HObject, version: u64, cursor: &CopyCursor) -> OsdOpMsg {
    let mut input = cursor.to_bytes(F);
    CHUNK.encode(&mut input, F);
    let guard = OsdOp::new(OpCode::ASSERT_VER, OpArgs::AssertVer { ver: version }, Bytes::new());
    let get = OsdOp::new(OpCode::COPY_GET, OpArgs::CopyGet { max: CHUNK }, input.into());
    OsdOpMsg {
        flags: flag::READ | flag::ONDISK | flag::KNOWN_REDIR,
        ops: if version == 0 { vec![get] } else { vec![guard, get] },
        snap: object.snap,
        ..OsdOpMsg::default()
    }
}

/// What has come so far.
#[derive(Default)]
pub(crate) struct Whole {
    cursor: CopyCursor,
    info: ObjectInfo,
    xattrs: Vec<(Bytes, Bytes)>,
    omap_header: Bytes,
    omap: Vec<(Bytes, Bytes)>,
    data: Vec<(u64, Bytes)>,
    /// Of all data, if it was told.
    digest: Option<u32>,
    /// Of the omap, if it was told, and of what of it has come.
    omap_digest: Option<u32>,
    omap_crc: u32,
}

impl Whole {
    /// Takes the next part, which must bring the copy on.
    pub(crate) fn add(&mut self, part: CopyData) -> Result<(), i32> {
        let end = self.cursor.data_offset + part.data.len() as u64;
        if part.cursor == self.cursor || part.cursor.data_offset != end || end > part.size {
            return Err(-EIO);
        }
        self.omap_crc = crc32c::crc32c_append(self.omap_crc, &part.omap_header);
        if !part.omap_data.is_empty() {
            // All but their number.
            let raw = part.omap_data.get(4..).unwrap_or_default();
            self.omap_crc = crc32c::crc32c_append(self.omap_crc, raw);
            let pairs = Vec::from_bytes(&part.omap_data).map_err(|_| -EIO)?;
            self.omap.extend::<Vec<(Bytes, Bytes)>>(pairs);
        }
        self.xattrs.extend(part.attrs);
        if !part.omap_header.is_empty() {
            self.omap_header = part.omap_header;
        }
        if !part.data.is_empty() {
            self.data.push((end - part.data.len() as u64, part.data));
        }
        if part.flags & CopyData::DATA_DIGEST != 0 {
            self.digest = Some(part.data_digest);
        }
        if part.flags & CopyData::OMAP_DIGEST != 0 {
            self.omap_digest = Some(part.omap_digest);
        }
        self.info.size = part.size;
        let truncated = (part.truncate_seq, part.truncate_size);
        self.info.truncate = (part.truncate_seq != 0).then_some(truncated);
        self.cursor = part.cursor;
        Ok(())
    }

    /// The whole object, if its data and omap are what was told.
    pub(crate) fn source(mut self, user_version: u64) -> Result<Source, i32> {
        let crc = |crc, piece: &(u64, Bytes)| crc32c::crc32c_append(crc, &piece.1);
        if self.digest.is_some_and(|digest| digest != !self.data.iter().fold(0, crc)) {
            tracing::error!("the data of a copy is not what its source says");
            return Err(-EIO);
        }
        if self.omap_digest.is_some_and(|digest| digest != !self.omap_crc) {
            tracing::error!("the omap of a copy is not what its source says");
            return Err(-EIO);
        }
        self.info.user_version = user_version;
        self.info.omap = !self.omap_header.is_empty() || !self.omap.is_empty();
        Ok(Source {
            info: self.info,
            xattrs: self.xattrs,
            omap_header: self.omap_header,
            omap: self.omap,
            data: SourceData::Bytes(self.data),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(offset: u64, data: &str, size: u64, omap: &[(&str, &str)]) -> CopyData {
        let pairs: Vec<(Bytes, Bytes)> =
            omap.iter().map(|(k, v)| ((*k).to_owned().into(), (*v).to_owned().into())).collect();
        let cursor = CopyCursor {
            attr_complete: true,
            data_offset: offset + data.len() as u64,
            data_complete: true,
            omap_offset: pairs.last().map(|(key, _)| key.clone()).unwrap_or_default(),
            omap_complete: omap.is_empty(),
        };
        let omap_data = if pairs.is_empty() { Bytes::new() } else { pairs.to_bytes(F).into() };
        CopyData { size, data: data.to_owned().into(), omap_data, cursor, ..CopyData::default() }
    }

    #[test]
    fn parts_make_a_whole() {
        let mut whole = Whole::default();
        whole.add(part(0, "hel", 5, &[])).unwrap();
        whole.add(part(3, "lo", 5, &[("k", "v")])).unwrap();
        whole.add(part(5, "", 5, &[("l", "w")])).unwrap();
        let source = whole.source(7).unwrap();
        assert_eq!((source.info.size, source.info.user_version, source.info.omap), (5, 7, true));
        assert_eq!(source.data, SourceData::Bytes(vec![(0, "hel".into()), (3, "lo".into())]));
        assert_eq!(source.omap.len(), 2);
    }

    #[test]
    fn data_has_to_match_its_digest() {
        for (data_digest, errno) in [(!crc32c::crc32c(b"hello"), None), (1, Some(-EIO))] {
            let mut whole = Whole::default();
            let flags = CopyData::DATA_DIGEST;
            whole.add(CopyData { flags, data_digest, ..part(0, "hel", 5, &[]) }).unwrap();
            whole.add(part(3, "lo", 5, &[])).unwrap();
            assert_eq!(whole.source(7).err(), errno);
        }
    }

    #[test]
    fn the_omap_has_to_match_its_digest() {
        let header = Bytes::from("head");
        let told = b"head\x01\0\0\0k\x01\0\0\0v\x01\0\0\0l\x01\0\0\0w";
        for (omap_digest, errno) in [(!crc32c::crc32c(told), None), (1, Some(-EIO))] {
            let mut whole = Whole::default();
            let first = part(0, "hello", 5, &[("k", "v")]);
            let flags = CopyData::OMAP_DIGEST;
            whole.add(CopyData { omap_header: header.clone(), ..first }).unwrap();
            whole.add(CopyData { flags, omap_digest, ..part(5, "", 5, &[("l", "w")]) }).unwrap();
            assert_eq!(whole.source(7).err(), errno);
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let start = || {
            let mut whole = Whole::default();
            whole.add(part(0, "hel", 5, &[])).unwrap();
            whole
        };
        for bad in [
            part(3, "lots", 5, &[]),
            part(1, "x", 5, &[]),
            part(3, "", 5, &[]),
            CopyData { omap_data: "junk".into(), ..part(3, "lo", 5, &[]) },
        ] {
            assert_eq!(start().add(bad.clone()), Err(-EIO), "{bad:?}");
        }
    }
}
