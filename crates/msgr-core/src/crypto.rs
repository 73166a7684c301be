//! Secure mode: AES-128-GCM over whole texts, in place, with a nonce that counts.
//!
//! The connection secret is a 16-byte key and two 12-byte nonces, the first for what the connecting
//! side receives. 2.1 counts in the last eight bytes of the nonce, 2.0 in the first four.
//!
//! Invariant: a nonce is used once; when the counter is back at its start the connection ends.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ring::aead::{self, Aad, LessSafeKey, UnboundKey};

use crate::banner::Revision;
use crate::error::{AuthFailure, PeerMisbehaved};
use crate::frame::{GCM_TAG_LEN, PREAMBLE_LEN};

const KEY_LEN: usize = 16;
const NONCE_LEN: usize = 12;
const SECRET_LEN: usize = KEY_LEN + 2 * NONCE_LEN;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Connect,
    Accept,
}

/// Both directions of a secure connection, from the secret that the handshake agreed on.
pub(crate) fn secure_pair(
    secret: &[u8],
    revision: Revision,
    side: Side,
) -> Result<(Sealer, Opener), AuthFailure> {
    let short = AuthFailure::ShortSecret(secret.len());
    let (key, nonces) = match (secret.first_chunk::<KEY_LEN>(), secret.get(KEY_LEN..SECRET_LEN)) {
        (Some(key), Some(nonces)) => (key, nonces),
        _ => return Err(short),
    };
    let (first, second) = match (nonces.first_chunk(), nonces.last_chunk()) {
        (Some(first), Some(second)) => (*first, *second),
        _ => return Err(short),
    };
    let (rx, tx) = match side {
        Side::Connect => (first, second),
        Side::Accept => (second, first),
    };
    // The key has the algorithm's length, the only thing `ring` checks.
    let ring_key = || {
        UnboundKey::new(&aead::AES_128_GCM, key).map(LessSafeKey::new).map_err(|_| short.clone())
    };
    let sealer = Sealer { key: ring_key()?, nonce: Counter::new(tx, revision) };
    let opener = Opener {
        key: ring_key()?,
        nonce: Counter::new(rx, revision),
        block: Aes128::new(&(*key).into()),
    };
    Ok((sealer, opener))
}

/// Encrypts what is sent.
pub(crate) struct Sealer {
    key: LessSafeKey,
    nonce: Counter,
}

impl Sealer {
    /// Encrypts `text` in place and returns its tag.
    pub(crate) fn seal(&mut self, text: &mut [u8]) -> Result<[u8; GCM_TAG_LEN], PeerMisbehaved> {
        let nonce = self.nonce.next()?;
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), text)
            .map_err(|_| PeerMisbehaved::NoncesExhausted)?;
        let mut out = [0; GCM_TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }
}

/// Decrypts what is received.
pub(crate) struct Opener {
    key: LessSafeKey,
    nonce: Counter,
    block: Aes128,
}

impl Opener {
    /// Decrypts a text in place; its last 16 bytes are the tag.
    pub(crate) fn open(&mut self, text_and_tag: &mut [u8]) -> Result<(), PeerMisbehaved> {
        let nonce = self.nonce.next()?;
        match self.key.open_in_place(nonce, Aad::empty(), text_and_tag) {
            Ok(_) => Ok(()),
            Err(_) => Err(PeerMisbehaved::Decryption),
        }
    }

    /// 2.0: decrypts the first two blocks of the next text, to learn its length before its tag has
    /// arrived. They are not authenticated yet; [`Opener::open`] does that when all is there.
    pub(crate) fn peek(&self, blocks: &[u8; PREAMBLE_LEN]) -> [u8; PREAMBLE_LEN] {
        let mut out = *blocks;
        for (counter, chunk) in (2u32..).zip(out.chunks_exact_mut(16)) {
            let mut pad = [0; 16];
            pad[..NONCE_LEN].copy_from_slice(&self.nonce.value);
            pad[NONCE_LEN..].copy_from_slice(&counter.to_be_bytes());
            let mut pad = pad.into();
            self.block.encrypt_block(&mut pad);
            chunk.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
        }
        out
    }
}

struct Counter {
    value: [u8; NONCE_LEN],
    revision: Revision,
    left: u64,
}

impl Counter {
    fn new(value: [u8; NONCE_LEN], revision: Revision) -> Self {
        let left = match revision {
            Revision::R0 => u32::MAX.into(),
            Revision::R1 => u64::MAX,
        };
        Self { value, revision, left }
    }

    fn next(&mut self) -> Result<aead::Nonce, PeerMisbehaved> {
        self.left = self.left.checked_sub(1).ok_or(PeerMisbehaved::NoncesExhausted)?;
        let nonce = aead::Nonce::assume_unique_for_key(self.value);
        let counter = match self.revision {
            Revision::R0 => &mut self.value[..4],
            Revision::R1 => &mut self.value[4..],
        };
        for byte in counter {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(revision: Revision) -> (Sealer, Opener, Opener) {
        let secret: Vec<u8> = (0..64).collect();
        let (c, _) = secure_pair(&secret, revision, Side::Connect).unwrap();
        let (_, a) = secure_pair(&secret, revision, Side::Accept).unwrap();
        let (_, wrong) = secure_pair(&secret, revision, Side::Connect).unwrap();
        (c, a, wrong)
    }

    #[test]
    fn the_sides_mirror_each_other() {
        for revision in [Revision::R0, Revision::R1] {
            let (mut seal, mut open, mut wrong) = pairs(revision);
            for _ in 0..300 {
                let mut text = *b"some text of thirty-two bytes!!!................";
                let tag = seal.seal(&mut text[..32]).unwrap();
                text[32..].copy_from_slice(&tag);
                let head = *text.first_chunk().unwrap();
                assert_eq!(&open.peek(&head), b"some text of thirty-two bytes!!!");
                let mut copy = text;
                assert_eq!(wrong.open(&mut copy), Err(PeerMisbehaved::Decryption));
                open.open(&mut text).unwrap();
                assert_eq!(&text[..32], b"some text of thirty-two bytes!!!");
            }
        }
    }

    #[test]
    fn counters_step_where_the_revision_says() {
        let start = [0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0];
        let mut c = Counter::new(start, Revision::R1);
        c.next().unwrap();
        assert_eq!(c.value, [0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0]);
        let mut c = Counter::new(start, Revision::R0);
        c.next().unwrap();
        assert_eq!(c.value, [0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]);
        c.left = 0;
        assert!(c.next().is_err());
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(
            secure_pair(&[0; 39], Revision::R1, Side::Accept).err(),
            Some(AuthFailure::ShortSecret(39))
        );
    }
}
