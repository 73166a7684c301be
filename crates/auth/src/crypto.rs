//! The symmetric key of cephx: AES-128-CBC with PKCS#7 padding under Ceph's fixed IV, its binary
//! and base64 forms, and the envelope that every encrypted cephx structure is wrapped in.
//!
//! Invariants: a key that exists has a secret of 16 bytes or more (the first 16 are used) or is
//! the explicit "no key"; `Debug` never prints the secret.

use std::fmt;
use std::time::Duration;

use aes::Aes128;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use rand_chacha::rand_core::Rng;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::handshake::WallTime;

/// `CEPH_CRYPTO_AES`.
pub const CRYPTO_AES: u16 = 1;
/// Bytes of an AES-128 key.
pub const AES_KEY_LEN: usize = 16;

/// `CEPH_AES_IV`.
const AES_IV: [u8; 16] = *b"cephsageyudagreg";
/// `AUTH_ENC_MAGIC`.
const ENVELOPE_MAGIC: u64 = 0xff00_9cad_8826_aa55;
const ENVELOPE_VERSION: u8 = 1;

/// Ceph does not look at the bits beyond the last whole byte, so keys with any are in use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Why something could not be encrypted, opened or parsed as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    #[error("the key is empty")]
    NoKey,
    #[error("not a base64 cephx key")]
    BadKey,
    #[error("the key does not fit the ciphertext")]
    Decrypt,
    #[error("the decrypted envelope has a wrong magic")]
    Magic,
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A cephx secret with its creation time. `CryptoKey::default()` is Ceph's `CEPH_CRYPTO_NONE`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CryptoKey {
    type_: u16,
    created: Duration,
    secret: Bytes,
}

impl CryptoKey {
    /// A key made of 16 bytes from `rng`.
    pub fn generate(now: WallTime, rng: &mut impl Rng) -> Self {
        let mut secret = [0; AES_KEY_LEN];
        rng.fill_bytes(&mut secret);
        Self::from_secret(now, secret)
    }

    pub fn from_secret(created: WallTime, secret: [u8; AES_KEY_LEN]) -> Self {
        Self { type_: CRYPTO_AES, created, secret: Bytes::copy_from_slice(&secret) }
    }

    /// Parses the text form, as it stands in a keyring after `key = `.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        let raw = BASE64.decode(text.trim()).map_err(|_| CryptoError::BadKey)?;
        let mut r = Reader::new(&raw);
        let key = Self::decode(&mut r).map_err(|_| CryptoError::BadKey)?;
        if key.is_empty() || !r.is_empty() {
            return Err(CryptoError::BadKey);
        }
        Ok(key)
    }

    pub fn to_base64(&self) -> String {
        BASE64.encode(self.to_bytes(Features::PACIFIC))
    }

    /// The raw secret: the HMAC key of a messenger session.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    pub fn is_empty(&self) -> bool {
        self.secret.is_empty()
    }

    pub fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let cipher = cbc::Encryptor::<Aes128>::new(&self.aes_key()?.into(), &AES_IV.into());
        Ok(cipher.encrypt_padded_vec::<Pkcs7>(plain))
    }

    pub fn decrypt(&self, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let cipher = cbc::Decryptor::<Aes128>::new(&self.aes_key()?.into(), &AES_IV.into());
        cipher.decrypt_padded_vec::<Pkcs7>(sealed).map_err(|_| CryptoError::Decrypt)
    }

    /// Encrypts `value` in the cephx envelope; the result carries no length
    /// (`encode_encrypt_enc_bl`).
    pub fn seal(&self, value: &(impl Encode + ?Sized)) -> Result<Vec<u8>, CryptoError> {
        let f = Features::PACIFIC;
        let mut plain = vec![ENVELOPE_VERSION];
        ENVELOPE_MAGIC.encode(&mut plain, f);
        value.encode(&mut plain, f);
        self.encrypt(&plain)
    }

    /// Opens what [`seal`](Self::seal) made.
    pub fn open<T: Decode>(&self, sealed: &[u8]) -> Result<T, CryptoError> {
        let plain = self.decrypt(sealed)?;
        let mut r = Reader::new(&plain);
        r.u8()?;
        if r.u64()? != ENVELOPE_MAGIC {
            return Err(CryptoError::Magic);
        }
        Ok(T::decode(&mut r)?)
    }

    /// [`seal`](Self::seal) behind a `u32` length (`encode_encrypt`).
    pub fn seal_into(
        &self,
        value: &(impl Encode + ?Sized),
        out: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        self.seal(value)?.as_slice().encode(out, Features::PACIFIC);
        Ok(())
    }

    /// Reads a `u32` length and opens what follows (`decode_decrypt`).
    pub fn open_from<T: Decode>(&self, r: &mut Reader<'_>) -> Result<T, CryptoError> {
        self.open(r.blob("encrypted blob")?)
    }

    fn aes_key(&self) -> Result<[u8; AES_KEY_LEN], CryptoError> {
        self.secret.first_chunk().copied().ok_or(CryptoError::NoKey)
    }
}

impl fmt::Debug for CryptoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "CryptoKey(none)" } else { "CryptoKey(..)" })
    }
}

impl Encode for CryptoKey {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.type_.encode(out, f);
        encode_time(self.created, out);
        (self.secret.len() as u16).encode(out, f);
        out.extend_from_slice(&self.secret);
    }
}

impl Decode for CryptoKey {
    const MIN_SIZE: usize = 12;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let type_ = r.u16()?;
        let created = decode_time(r)?;
        let len = r.u16()? as usize;
        let secret = Bytes::copy_from_slice(r.take(len, "key")?);
        let fits = match type_ {
            0 => len == 0,
            CRYPTO_AES => len >= AES_KEY_LEN,
            _ => {
                return Err(DecodeError::Invalid { what: "key type", value: type_.into() });
            }
        };
        if !fits {
            return Err(DecodeError::Invalid { what: "key length", value: len as u64 });
        }
        Ok(Self { type_, created, secret })
    }
}

/// Writes a time or a span as `utime_t`.
pub(crate) fn encode_time(t: Duration, out: &mut Vec<u8>) {
    let sec = u32::try_from(t.as_secs()).unwrap_or(u32::MAX);
    out.extend_from_slice(&sec.to_le_bytes());
    out.extend_from_slice(&t.subsec_nanos().to_le_bytes());
}

pub(crate) fn decode_time(r: &mut Reader<'_>) -> Result<Duration, DecodeError> {
    let sec = r.u32()?;
    let nsec = r.u32()?;
    Ok(Duration::from_secs(sec.into()) + Duration::from_nanos(nsec.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_that_of_ceph_authtool() {
        let text = "AQDDaAJrKj6vFBAAHqOaMaRSzC//WW/gci49BQ==";
        let key = CryptoKey::from_base64(text).unwrap();
        assert_eq!((key.type_, key.secret().len()), (CRYPTO_AES, AES_KEY_LEN));
        assert_eq!(key.to_base64(), text);
        assert_eq!(key.created.as_secs(), 0x6b02_68c3);
        assert_eq!(format!("{key:?}"), "CryptoKey(..)");
        let odd = "AQBaaaaaaaaaaRAAaaaaaaaaaaaaaaaaaaaaaa==";
        assert!(CryptoKey::from_base64(odd).is_ok());
        for bad in ["", "AQ==", "AQDDaAJrKj6vFBAAHqOaMaRSzC//WW/gci49", "!", "AAA="] {
            assert_eq!(CryptoKey::from_base64(bad), Err(CryptoError::BadKey), "{bad}");
        }
    }

    #[test]
    fn envelopes_open_under_their_key_only() {
        let key = CryptoKey::from_secret(Duration::ZERO, [1; 16]);
        let sealed = key.seal(&7u64).unwrap();
        assert_eq!(sealed.len(), 32);
        assert_eq!(key.open::<u64>(&sealed), Ok(7));
        let other = CryptoKey::from_secret(Duration::ZERO, [2; 16]);
        assert!(other.open::<u64>(&sealed).is_err());
        assert_eq!(key.open::<u64>(&sealed[..31]), Err(CryptoError::Decrypt));
        assert_eq!(key.open::<u64>(&[]), Err(CryptoError::Decrypt));
        let plain = key.encrypt(&[1; 17]).unwrap();
        assert_eq!(key.open::<u64>(&plain), Err(CryptoError::Magic));
        assert_eq!(CryptoKey::default().encrypt(&[]), Err(CryptoError::NoKey));
    }
}
