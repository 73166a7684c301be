//! Frames: tags, the preamble, and the lengths of every part in all four layouts (revision 2.0 and
//! 2.1, CRC and secure mode).
//!
//! Sources of the format: Ceph's `msg/async/frames_v2.h` and Linux' `net/ceph/messenger_v2.c`.
//!
//! ```text
//! 2.1 crc     preamble 32 | seg0 | crc 4 |            seg1 | seg2 | seg3 | late status 1, crc 3 x 4
//! 2.1 secure  [preamble 32, first 48 of seg0] tag 16 | [rest of seg0] tag | [seg1..3, late 16] tag
//! 2.0 crc     preamble 32 | seg0..3 | late flags 1, crc 4 x 4
//! 2.0 secure  [preamble 32, seg0..3, late 16] tag 16
//! ```
//! Brackets are one AES-128-GCM text, in which each segment is padded to 16 bytes. In 2.1 an empty
//! seg0 has no crc, a seg0 of at most 48 bytes has no second text, and a frame of one segment has
//! no epilogue.

use spirula_wire::Reader;

use crate::banner::Revision;
use crate::crc::ceph_crc32c;
use crate::error::{PeerMisbehaved, ProtocolError};

pub(crate) const SEGMENTS: usize = 4;
pub(crate) const PREAMBLE_LEN: usize = 32;
pub(crate) const CRC_LEN: usize = 4;
/// Bytes of segment 0 that travel with the preamble in 2.1 secure mode.
pub(crate) const INLINE_LEN: usize = 48;
pub(crate) const GCM_TAG_LEN: usize = 16;
/// The first unit of a 2.1 secure frame.
pub(crate) const SECURE_PREAMBLE_LEN: usize = PREAMBLE_LEN + INLINE_LEN + GCM_TAG_LEN;
/// Late status and CRCs of segments 1 to 3.
pub(crate) const EPILOGUE_R1_LEN: usize = 1 + 3 * CRC_LEN;
/// Late flags and CRCs of all segments.
pub(crate) const EPILOGUE_R0_LEN: usize = 1 + SEGMENTS * CRC_LEN;
/// Late status and padding, inside the cipher text.
pub(crate) const EPILOGUE_SECURE_LEN: usize = 16;

const LATE_STATUS_MASK: u8 = 0xf;
const LATE_STATUS_ABORTED: u8 = 0x1;
pub(crate) const LATE_STATUS_COMPLETE: u8 = 0xe;
/// 2.0: a bit in flags that are otherwise zero.
const LATE_FLAG_ABORTED: u8 = 0x1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    Hello = 1,
    AuthRequest = 2,
    AuthBadMethod = 3,
    AuthReplyMore = 4,
    AuthRequestMore = 5,
    AuthDone = 6,
    AuthSignature = 7,
    ClientIdent = 8,
    ServerIdent = 9,
    IdentMissingFeatures = 10,
    SessionReconnect = 11,
    SessionReset = 12,
    SessionRetry = 13,
    SessionRetryGlobal = 14,
    SessionReconnectOk = 15,
    Wait = 16,
    Message = 17,
    Keepalive2 = 18,
    Keepalive2Ack = 19,
    Ack = 20,
    /// Only after both banners carried the compression bit, which ours never does.
    CompressionRequest = 21,
    CompressionDone = 22,
}

impl Tag {
    const ALL: [Self; 22] = [
        Self::Hello,
        Self::AuthRequest,
        Self::AuthBadMethod,
        Self::AuthReplyMore,
        Self::AuthRequestMore,
        Self::AuthDone,
        Self::AuthSignature,
        Self::ClientIdent,
        Self::ServerIdent,
        Self::IdentMissingFeatures,
        Self::SessionReconnect,
        Self::SessionReset,
        Self::SessionRetry,
        Self::SessionRetryGlobal,
        Self::SessionReconnectOk,
        Self::Wait,
        Self::Message,
        Self::Keepalive2,
        Self::Keepalive2Ack,
        Self::Ack,
        Self::CompressionRequest,
        Self::CompressionDone,
    ];

    pub(crate) fn from_wire(value: u8) -> Result<Self, PeerMisbehaved> {
        let index = usize::from(value).wrapping_sub(1);
        Self::ALL.get(index).copied().ok_or(PeerMisbehaved::UnknownTag(value))
    }
}

/// The first 32 bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) tag: Tag,
    /// 1 to 4.
    pub(crate) count: usize,
    /// Zero from `count` on.
    pub(crate) lens: [u32; SEGMENTS],
}

impl Preamble {
    /// Trailing empty segments are not counted, but there is always one.
    pub(crate) fn new(tag: Tag, lens: [u32; SEGMENTS]) -> Self {
        let count = lens.iter().rposition(|&len| len > 0).map_or(1, |last| last + 1);
        Self { tag, count, lens }
    }

    pub(crate) fn encode(&self) -> [u8; PREAMBLE_LEN] {
        const ALIGNS: [u16; SEGMENTS] = [8, 8, 8, 4096];
        let mut out = [0; PREAMBLE_LEN];
        out[0] = self.tag as u8;
        out[1] = self.count as u8;
        let segments = self.lens.iter().zip(ALIGNS).take(self.count);
        for ((len, align), field) in segments.zip(out[2..].chunks_exact_mut(6)) {
            field[..4].copy_from_slice(&len.to_le_bytes());
            field[4..].copy_from_slice(&align.to_le_bytes());
        }
        let crc = ceph_crc32c(0, &out[..PREAMBLE_LEN - CRC_LEN]);
        out[PREAMBLE_LEN - CRC_LEN..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut r = Reader::new(bytes);
        let covered = r.take(PREAMBLE_LEN - CRC_LEN, "preamble")?;
        if r.u32()? != ceph_crc32c(0, covered) {
            return Err(PeerMisbehaved::PreambleCrc.into());
        }
        let mut r = Reader::new(covered);
        let tag = Tag::from_wire(r.u8()?)?;
        let count = r.u8()?;
        // Control frames always have one segment.
        let max = if tag == Tag::Message { SEGMENTS } else { 1 };
        if count == 0 || usize::from(count) > max {
            return Err(PeerMisbehaved::SegmentCount { count }.into());
        }
        let count = usize::from(count);
        let mut lens = [0; SEGMENTS];
        for (i, len) in lens.iter_mut().enumerate() {
            let value = r.u32()?;
            r.u16()?;
            if i < count {
                *len = value;
            }
        }
        if count > 1 && lens[count - 1] == 0 {
            return Err(PeerMisbehaved::EmptySegment.into());
        }
        // The flags say "compressed", which was not negotiated.
        match r.u8()? {
            0 => Ok(Self { tag, count, lens }),
            flags => Err(PeerMisbehaved::UnknownFlags(flags).into()),
        }
    }

    pub(crate) fn len(&self, segment: usize) -> usize {
        self.lens[segment] as usize
    }

    fn padded(&self, segment: usize) -> usize {
        self.len(segment).next_multiple_of(16)
    }

    /// Front, middle and data: what the dispatch throttle counts.
    pub(crate) fn payload_len(&self) -> u64 {
        self.lens[1..].iter().map(|&len| u64::from(len)).sum()
    }

    /// CRC mode: what lies between the preamble and segment 1 or the end of a 2.0 segment 0.
    pub(crate) fn first_crc_len(&self, revision: Revision) -> usize {
        match (revision, self.len(0)) {
            (Revision::R0, len) => len,
            (Revision::R1, 0) => 0,
            (Revision::R1, len) => len + CRC_LEN,
        }
    }

    pub(crate) fn epilogue_crc_len(&self, revision: Revision) -> usize {
        match (revision, self.count) {
            (Revision::R0, _) => EPILOGUE_R0_LEN,
            (Revision::R1, 1) => 0,
            (Revision::R1, _) => EPILOGUE_R1_LEN,
        }
    }

    /// CRC mode: all that follows the preamble.
    pub(crate) fn rest_crc_len(&self, revision: Revision) -> usize {
        let others: usize = (1..SEGMENTS).map(|i| self.len(i)).sum();
        self.first_crc_len(revision) + others + self.epilogue_crc_len(revision)
    }

    /// 2.1 secure: the second cipher text with its tag, or 0.
    pub(crate) fn first_secure_len(&self) -> usize {
        match self.len(0).saturating_sub(INLINE_LEN) {
            0 => 0,
            rest => rest.next_multiple_of(16) + GCM_TAG_LEN,
        }
    }

    /// 2.1 secure: the last cipher text with its tag, or 0.
    pub(crate) fn tail_secure_len(&self) -> usize {
        if self.count == 1 {
            return 0;
        }
        let others: usize = (1..SEGMENTS).map(|i| self.padded(i)).sum();
        others + EPILOGUE_SECURE_LEN + GCM_TAG_LEN
    }

    /// 2.0 secure: the whole frame with its tag.
    pub(crate) fn whole_secure_r0_len(&self) -> usize {
        let all: usize = (0..SEGMENTS).map(|i| self.padded(i)).sum();
        PREAMBLE_LEN + all + EPILOGUE_SECURE_LEN + GCM_TAG_LEN
    }
}

/// Whether the sender completed the frame (`true`) or aborted it half way, to be dropped.
pub(crate) fn is_complete(revision: Revision, late: u8) -> Result<bool, PeerMisbehaved> {
    match (revision, late & LATE_STATUS_MASK) {
        (Revision::R0, _) => Ok(late & LATE_FLAG_ABORTED == 0),
        (Revision::R1, LATE_STATUS_COMPLETE) => Ok(true),
        (Revision::R1, LATE_STATUS_ABORTED) => Ok(false),
        (Revision::R1, _) => Err(PeerMisbehaved::LateStatus(late)),
    }
}

/// The first byte of the epilogue of a frame that is complete.
pub(crate) fn late_complete(revision: Revision) -> u8 {
    match revision {
        Revision::R0 => 0,
        Revision::R1 => LATE_STATUS_COMPLETE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preamble_round_trip() {
        let p = Preamble::new(Tag::Message, [41, 7, 0, 4096]);
        assert_eq!(p.count, 4);
        assert_eq!(Preamble::decode(&p.encode()), Ok(p));
        let p = Preamble::new(Tag::Wait, [0; 4]);
        assert_eq!(p.count, 1);
        assert_eq!(Preamble::decode(&p.encode()), Ok(p));
    }

    #[test]
    fn hostile_preambles_are_refused() {
        let bad = |edit: fn(&mut [u8; PREAMBLE_LEN])| {
            let mut raw = Preamble::new(Tag::Message, [41, 7, 0, 9]).encode();
            edit(&mut raw);
            let crc = ceph_crc32c(0, &raw[..28]);
            raw[28..].copy_from_slice(&crc.to_le_bytes());
            Preamble::decode(&raw).unwrap_err()
        };
        assert_eq!(bad(|r| r[0] = 0), PeerMisbehaved::UnknownTag(0).into());
        assert_eq!(bad(|r| r[0] = 23), PeerMisbehaved::UnknownTag(23).into());
        assert_eq!(bad(|r| r[1] = 0), PeerMisbehaved::SegmentCount { count: 0 }.into());
        assert_eq!(bad(|r| r[1] = 5), PeerMisbehaved::SegmentCount { count: 5 }.into());
        assert_eq!(bad(|r| r[1] = 3), PeerMisbehaved::EmptySegment.into());
        assert_eq!(bad(|r| r[0] = 1), PeerMisbehaved::SegmentCount { count: 4 }.into());
        assert_eq!(bad(|r| r[26] = 1), PeerMisbehaved::UnknownFlags(1).into());
    }

    #[test]
    fn tags_are_their_numbers() {
        for (i, tag) in Tag::ALL.into_iter().enumerate() {
            assert_eq!(tag as usize, i + 1);
        }
    }
}
