//! A part of an object, as it is in the data segment of an `object_push` (`docs/protocol-osd.md`).

use bytes::Bytes;
use spirula_vos::{ContainerId, ObjectKey, Tx};
use spirula_wire::types::SnapId;
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader};

use super::CopyError;

const F: Features = Features::PACIFIC;
const PART_VERSION: u8 = 1;
/// Data in a part.
pub const PART_BYTES: usize = 4 << 20;
/// Bytes of all else in it, as a rule: a single value that is longer makes a longer part. They go into
/// the receiver's WAL, a record of which has room in the smallest one.
pub const PART_ENTRIES: usize = 128 << 10;

/// A part of an object.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Part {
    /// From 0 on.
    pub number: u32,
    pub last: bool,
    /// Pieces of one sequence of bytes.
    pub data: Vec<Bytes>,
}

/// What is in a part.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Content {
    /// In the last part: which snapshots the object has clones for.
    pub(super) snaps: Vec<SnapId>,
    /// What the store exported.
    pub(super) entries: Bytes,
    /// The bytes that belong to it.
    pub(super) pieces: Vec<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
struct Head {
    version: u8,
    entries_crc: u32,
    /// Of all pieces.
    data_crc: u32,
    entries_len: u32,
    snaps: Vec<SnapId>,
    lens: Vec<u32>,
}

fn crc_of(pieces: &[Bytes]) -> u32 {
    pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece))
}

impl Content {
    /// `data_crc` is that of the pieces, as the store knows it.
    pub(super) fn encode(self, data_crc: u32) -> Vec<Bytes> {
        let head = Head {
            version: PART_VERSION,
            entries_crc: crc32c::crc32c(&self.entries),
            data_crc,
            entries_len: self.entries.len() as u32,
            snaps: self.snaps,
            lens: self.pieces.iter().map(|piece| piece.len() as u32).collect(),
        };
        let mut out = vec![head.to_bytes(F).into(), self.entries];
        out.extend(self.pieces);
        out
    }

    pub(super) fn decode(data: &Bytes) -> Result<Self, CopyError> {
        let (head, content) = Self::split(data)?;
        let sound = crc32c::crc32c(&content.entries) == head.entries_crc
            && crc_of(&content.pieces) == head.data_crc;
        sound.then_some(content).ok_or(CopyError::Malformed("a checksum"))
    }

    fn split(data: &Bytes) -> Result<(Head, Self), CopyError> {
        let reader = &mut Reader::new(data);
        let bad = |_: DecodeError| CopyError::Malformed("its head");
        let mut head = Head::decode(reader).map_err(bad)?;
        if head.version != PART_VERSION {
            return Err(CopyError::Malformed("its version is not known"));
        }
        let mut rest = data.slice(data.len() - reader.remaining()..);
        let len = head.lens.iter().map(|len| u64::from(*len)).sum::<u64>();
        if u64::from(head.entries_len) + len != rest.len() as u64 {
            return Err(CopyError::Malformed("its length"));
        }
        let entries = rest.split_to(head.entries_len as usize);
        let pieces = head.lens.iter().map(|len| rest.split_to(*len as usize)).collect();
        let snaps = std::mem::take(&mut head.snaps);
        Ok((head, Self { snaps, entries, pieces }))
    }
}

/// Splits a part, whatever its checksums; with the right ones it decodes to the same, and its entries
/// are judged.
pub(crate) fn fuzz(data: &[u8]) {
    let Ok((_, content)) = Content::split(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let crc = crc_of(&content.pieces);
    let raw = Bytes::from(content.clone().encode(crc).concat());
    assert_eq!(Content::decode(&raw).as_ref(), Ok(&content));
    let mut tx = Tx::new(1);
    let oid = ObjectKey(Bytes::from_static(b"o"));
    let _ = tx.import(ContainerId([0; 16]), &oid, content.entries, content.pieces);
}

/// A part for the fuzz target.
pub(crate) fn seed() -> Vec<u8> {
    let snaps = vec![SnapId(4), SnapId(9)];
    // An akey, and bytes of it on the device.
    let entries = Bytes::from_static(&[1, 1, b'd', 1, b'.', 5, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    Content { snaps, entries, pieces: vec!["abc".into()] }.encode(0).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_reaches_the_entries() {
        let (_, content) = Content::split(&seed().into()).unwrap();
        let (mut tx, oid) = (Tx::new(1), ObjectKey(Bytes::from_static(b"o")));
        let taken = tx.import(ContainerId([0; 16]), &oid, content.entries, content.pieces);
        assert_eq!(taken, Ok(()));
    }

    #[test]
    fn parts_round_trip_and_damaged_ones_are_refused() {
        let content = Content {
            snaps: vec![SnapId(4), SnapId(9)],
            entries: "entries".into(),
            pieces: vec!["da".into(), "ta!".into()],
        };
        let crc = crc32c::crc32c(b"data!");
        let raw = Bytes::from(content.clone().encode(crc).concat());
        assert_eq!(Content::decode(&raw), Ok(content));
        for at in 0..raw.len() {
            let mut bad = raw.to_vec();
            bad[at] ^= 1;
            // The head has no checksum of its own: the messenger's has to do for the snapshots.
            let in_snaps = (17..33).contains(&at);
            assert_eq!(Content::decode(&bad.into()).is_ok(), in_snaps, "{at}");
            assert!(Content::decode(&raw.slice(..at)).is_err(), "{at}");
        }
    }
}
