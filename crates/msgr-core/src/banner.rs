//! The banner: the first bytes in both directions, which carry the messenger's own feature bits.
//!
//! Layout: `ceph v2\n`, `u16` length of the rest (16 or more), `u64` supported, `u64` required.

use bytes::{Buf, BytesMut};
use spirula_wire::Reader;

use crate::error::{PeerIncompatible, PeerMisbehaved, ProtocolError};

const PREFIX: &[u8; 8] = b"ceph v2\n";
/// What messenger v1 opens with (followed by `027` and addresses).
const LEGACY_PREFIX: &[u8] = b"ceph v0";
const FIXED_LEN: usize = PREFIX.len() + 2;
const FEATURES_LEN: usize = 16;
/// More than any known banner; a longer one is hostile.
const PAYLOAD_MAX: usize = 1024;

/// `CEPH_MSGR2_FEATURE_REVISION_1`: frames as in messenger v2.1.
pub const FEATURE_REVISION_1: u64 = 1;

/// Which layout frames have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// 2.0: one epilogue with all CRCs, one cipher text per frame.
    R0,
    /// 2.1.
    R1,
}

/// The feature bits of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Banner {
    pub supported: u64,
    pub required: u64,
}

impl Banner {
    pub const LEN: usize = FIXED_LEN + FEATURES_LEN;

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFIX);
        out.extend_from_slice(&(FEATURES_LEN as u16).to_le_bytes());
        out.extend_from_slice(&self.supported.to_le_bytes());
        out.extend_from_slice(&self.required.to_le_bytes());
    }

    /// Takes the peer's banner from the front of `input`; its raw bytes go to `seen`. `Err` in the
    /// outer result is final, `Ok(Err(n))` asks for `n` bytes in all.
    pub(crate) fn take(
        input: &mut BytesMut,
        seen: &mut Vec<u8>,
    ) -> Result<Result<Self, usize>, ProtocolError> {
        // A wrong opening is refused at its first wrong byte, so that a foreign peer that waits
        // for us is not waited for.
        let n = input.len().min(PREFIX.len());
        if input[..n] != PREFIX[..n] {
            let n = input.len().min(LEGACY_PREFIX.len());
            if input[..n] != LEGACY_PREFIX[..n] {
                return Err(PeerIncompatible::NotCeph.into());
            }
            if n == LEGACY_PREFIX.len() {
                return Err(PeerIncompatible::LegacyMessenger.into());
            }
        }
        if input.len() < FIXED_LEN {
            return Ok(Err(FIXED_LEN));
        }
        let payload_len = usize::from(u16::from_le_bytes([input[8], input[9]]));
        if !(FEATURES_LEN..=PAYLOAD_MAX).contains(&payload_len) {
            return Err(PeerMisbehaved::Banner.into());
        }
        let len = FIXED_LEN + payload_len;
        if input.len() < len {
            return Ok(Err(len));
        }
        let mut r = Reader::new(&input[FIXED_LEN..len]);
        let banner = Self { supported: r.u64()?, required: r.u64()? };
        seen.extend_from_slice(&input[..len]);
        input.advance(len);
        Ok(Ok(banner))
    }

    /// What both sides speak, `self` being ours.
    pub(crate) fn agree(&self, peer: &Self) -> Result<Revision, PeerIncompatible> {
        let unknown = peer.required & !self.supported;
        if unknown != 0 {
            return Err(PeerIncompatible::MessengerFeatures(unknown));
        }
        let missing = self.required & !peer.supported;
        if missing != 0 {
            return Err(PeerIncompatible::MissingFeatures(missing));
        }
        let both = self.supported & peer.supported;
        Ok(if both & FEATURE_REVISION_1 != 0 { Revision::R1 } else { Revision::R0 })
    }
}

impl Default for Banner {
    fn default() -> Self {
        Self { supported: FEATURE_REVISION_1, required: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> Result<Result<Banner, usize>, ProtocolError> {
        Banner::take(&mut BytesMut::from(bytes), &mut Vec::new())
    }

    #[test]
    fn round_trip_leaves_what_follows() {
        let mut bytes = Vec::new();
        Banner::default().encode(&mut bytes);
        assert_eq!(bytes.len(), Banner::LEN);
        let raw = bytes.clone();
        bytes.push(7);
        let (mut input, mut seen) = (BytesMut::from(&bytes[..]), Vec::new());
        assert_eq!(Banner::take(&mut input, &mut seen), Ok(Ok(Banner::default())));
        assert_eq!((&input[..], seen), (&[7][..], raw));
    }

    #[test]
    fn a_foreign_opening_is_named_early() {
        assert_eq!(take(b"ceph v027"), Err(PeerIncompatible::LegacyMessenger.into()));
        assert_eq!(take(b"GET"), Err(PeerIncompatible::NotCeph.into()));
        assert_eq!(take(b"ceph v"), Ok(Err(FIXED_LEN)));
        assert_eq!(take(b"ceph v2\n\x0f\0"), Err(PeerMisbehaved::Banner.into()));
        assert_eq!(take(b"ceph v2\n\xff\xff"), Err(PeerMisbehaved::Banner.into()));
    }

    #[test]
    fn revision_follows_both_sides() {
        let old = Banner { supported: 0, required: 0 };
        let ours = Banner::default();
        assert_eq!(ours.agree(&old), Ok(Revision::R0));
        assert_eq!(ours.agree(&ours), Ok(Revision::R1));
        let future = Banner { supported: 7, required: 4 };
        assert_eq!(ours.agree(&future), Err(PeerIncompatible::MessengerFeatures(4)));
    }
}
