//! The rotating secrets of a service: the previous, the current and the next key that tickets for
//! it are sealed with.
//!
//! Invariants: at most [`KEEP`] keys; ids only grow; a key expires no earlier than its predecessor.
//! A ticket never outlives the newest key.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::rand_core::Rng;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::crypto::{CryptoKey, decode_time, encode_time};
use crate::handshake::WallTime;

/// Previous, current, next (`KEY_ROTATE_NUM`).
pub const KEEP: usize = 3;

/// `ExpiringCryptoKey`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiringKey {
    pub key: CryptoKey,
    pub expires: WallTime,
}

impl Encode for ExpiringKey {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.key.encode(out, f);
        encode_time(self.expires, out);
    }
}

impl Decode for ExpiringKey {
    const MIN_SIZE: usize = 21;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self { key: Decode::decode(r)?, expires: decode_time(r)? })
    }
}

/// `RotatingSecrets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RotatingSecrets {
    pub secrets: BTreeMap<u64, ExpiringKey>,
    pub max_ver: u64,
}

/// The key to seal a ticket with, and how long the ticket may live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingKey {
    pub secret_id: u64,
    pub key: CryptoKey,
    pub ttl: Duration,
}

impl RotatingSecrets {
    pub fn get(&self, secret_id: u64) -> Option<&CryptoKey> {
        self.secrets.get(&secret_id).map(|s| &s.key)
    }

    /// The second oldest key, or the one after it once that has expired.
    pub fn sealing_key(&self, now: WallTime, ttl: Duration) -> Option<SealingKey> {
        let newest = self.secrets.values().next_back()?.expires;
        let skip = usize::from(self.secrets.len() > 1);
        let (id, secret) = self
            .secrets
            .iter()
            .skip(skip)
            .find(|(_, s)| s.expires >= now)
            .or_else(|| self.secrets.iter().next_back())?;
        Some(SealingKey {
            secret_id: *id,
            key: secret.key.clone(),
            ttl: ttl.min(newest.saturating_sub(now)),
        })
    }

    /// Whether [`rotate`](Self::rotate) would add a key.
    pub fn needs_rotation(&self, now: WallTime) -> bool {
        let current = self.secrets.values().nth(1);
        self.secrets.len() < KEEP || current.is_none_or(|c| c.expires <= now)
    }

    /// When [`needs_rotation`](Self::needs_rotation) turns true.
    pub fn rotates_at(&self) -> WallTime {
        match self.secrets.values().nth(1) {
            Some(current) if self.secrets.len() >= KEEP => current.expires,
            _ => Duration::ZERO,
        }
    }

    /// Adds keys until there is an unexpired current one; returns how many.
    pub fn rotate(&mut self, now: WallTime, ttl: Duration, rng: &mut impl Rng) -> usize {
        let mut added = 0;
        while self.needs_rotation(now) {
            let from = match self.secrets.values().next_back() {
                None => now,
                Some(newest) => newest.expires.max(now + ttl),
            };
            let secret = ExpiringKey { key: CryptoKey::generate(now, rng), expires: from + ttl };
            self.max_ver += 1;
            self.secrets.insert(self.max_ver, secret);
            while self.secrets.len() > KEEP {
                self.secrets.pop_first();
            }
            added += 1;
        }
        added
    }
}

impl Encode for RotatingSecrets {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.secrets.encode(out, f);
        self.max_ver.encode(out, f);
    }
}

impl Decode for RotatingSecrets {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self { secrets: Decode::decode(r)?, max_ver: r.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn keys_rotate_and_tickets_stay_inside() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut s = RotatingSecrets::default();
        let start = Duration::from_secs(1_000_000);
        assert_eq!(s.rotate(start, HOUR, &mut rng), 3);
        assert_eq!(s.max_ver, 3);
        let expiries: Vec<_> = s.secrets.values().map(|k| k.expires - start).collect();
        assert_eq!(expiries, [HOUR, 2 * HOUR, 3 * HOUR]);
        assert_eq!(s.sealing_key(start, HOUR).unwrap().secret_id, 2);
        assert_eq!(s.rotate(start + HOUR, HOUR, &mut rng), 0);
        assert_eq!(s.rotates_at(), start + 2 * HOUR);
        assert_eq!(s.rotate(s.rotates_at(), HOUR, &mut rng), 1);
        assert_eq!(s.secrets.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(s.sealing_key(start + 2 * HOUR, HOUR).unwrap().secret_id, 3);
        let late = s.sealing_key(start + 4 * HOUR - HOUR / 2, HOUR).unwrap();
        assert_eq!((late.secret_id, late.ttl), (4, HOUR / 2));
        assert_eq!(RotatingSecrets::from_bytes(&s.to_bytes(Features::PACIFIC)), Ok(s));
    }
}
