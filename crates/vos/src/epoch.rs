//! Epochs, and who can still see what lies between two of them.
//!
//! A version is visible from its birth up to, not including, its death. Readers name a hybrid logical
//! clock and see all of it; the minor part orders the operations of one transaction.

use crate::codec::{Malformed, Reader, put_u64, put_varint};

/// When an operation happens: the transaction's clock, then its place in the transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch {
    /// Hybrid logical clock of the transaction.
    pub hlc: u64,
    /// Order inside the transaction.
    pub minor: u16,
}

impl Epoch {
    /// The first moment of all.
    pub const MIN: Epoch = Epoch { hlc: 0, minor: 0 };

    /// An epoch of its parts.
    pub fn new(hlc: u64, minor: u16) -> Epoch {
        Epoch { hlc, minor }
    }

    /// The last moment of `hlc`: what a reader at it sees.
    pub fn end_of(hlc: u64) -> Epoch {
        Epoch { hlc, minor: u16::MAX }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        put_u64(out, self.hlc);
        put_varint(out, u64::from(self.minor));
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Epoch, Malformed> {
        Ok(Epoch { hlc: r.u64()?, minor: r.int()? })
    }

    /// In the order of epochs, for keys.
    pub(crate) fn key(self) -> [u8; 10] {
        let mut key = [0; 10];
        key[..8].copy_from_slice(&self.hlc.to_be_bytes());
        key[8..].copy_from_slice(&self.minor.to_be_bytes());
        key
    }

    pub(crate) fn from_key(key: &[u8]) -> Option<Epoch> {
        let (hlc, minor) = key.split_at_checked(8)?;
        Some(Epoch {
            hlc: u64::from_be_bytes(hlc.try_into().ok()?),
            minor: u16::from_be_bytes(minor.try_into().ok()?),
        })
    }
}

/// At which epochs somebody may still look: from the horizon on, and at the retained ones.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Observers {
    pub(crate) horizon: u64,
    /// In no order.
    pub(crate) retained: Vec<u64>,
}

impl Observers {
    /// Whether somebody may see a version with this birth and death.
    pub(crate) fn see(&self, birth: Epoch, death: Epoch) -> bool {
        let (from, to) = (birth.hlc, death.hlc);
        from < to && (to > self.horizon || self.retained.iter().any(|r| (from..to).contains(r)))
    }

    /// Whether a reader may ask for `hlc`.
    pub(crate) fn may_read(&self, hlc: u64) -> bool {
        hlc >= self.horizon || self.retained.contains(&hlc)
    }
}

/// The epochs at which everything older in one place was punched, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Punches(pub(crate) Vec<Epoch>);

impl Punches {
    /// The latest punch at or before `at`: what was born up to it is hidden then.
    pub(crate) fn last_until(&self, at: Epoch) -> Option<Epoch> {
        self.0.iter().rev().copied().find(|&p| p <= at)
    }

    /// Whether a version born at `birth` is hidden at `at`.
    pub(crate) fn hide(&self, birth: Epoch, at: Epoch) -> bool {
        self.0.iter().any(|&p| birth <= p && p <= at)
    }

    /// When a version born at `birth` ends that would otherwise do so at `death`.
    pub(crate) fn death(&self, birth: Epoch, death: Epoch) -> Epoch {
        let punch = self.0.iter().copied().find(|&p| birth <= p);
        punch.map_or(death, |p| p.min(death))
    }
}

/// All that staging must know about the surroundings of a value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) observers: Observers,
    pub(crate) punches: Punches,
}

impl Scene {
    /// Whether a version that is covered at `death` must be kept.
    pub(crate) fn keeps(&self, birth: Epoch, death: Epoch) -> bool {
        self.observers.see(birth, self.punches.death(birth, death))
    }

    /// Whether nobody can tell versions born at `a` and at `b` apart by their births.
    pub(crate) fn alike(&self, a: Epoch, b: Epoch) -> bool {
        let (first, last) = (a.min(b), a.max(b));
        first == last || (!self.observers.see(first, last) && !self.punches.hide(first, last))
    }

    /// Whether an operation older than one at `epoch` may still come.
    pub(crate) fn expects_older(&self, epoch: Epoch) -> bool {
        epoch.hlc > self.observers.horizon
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hlc: u64) -> Epoch {
        Epoch::new(hlc, 0)
    }

    #[test]
    fn observers_see_what_is_retained_or_above_the_horizon() {
        let observers = Observers { horizon: 50, retained: vec![10, 20] };
        assert!(observers.see(at(5), at(11)));
        assert!(!observers.see(at(5), at(10)), "gone at 10");
        assert!(observers.see(at(10), at(11)));
        assert!(!observers.see(at(21), at(50)));
        assert!(observers.see(at(21), at(51)));
        assert!(!observers.see(at(60), Epoch::new(60, 3)), "never a reader between minors");
    }

    #[test]
    fn punches_hide_what_is_older() {
        let punches = Punches(vec![at(10), at(20)]);
        assert!(punches.hide(at(10), at(10)) && punches.hide(at(5), at(12)));
        assert!(!punches.hide(at(11), at(19)) && punches.hide(at(11), at(20)));
        assert_eq!(punches.death(at(11), at(99)), at(20));
        assert_eq!(punches.death(at(21), at(99)), at(99));
        assert_eq!(punches.last_until(at(19)), Some(at(10)));
    }

    #[test]
    fn keys_keep_the_order() {
        let epochs = [Epoch::MIN, Epoch::new(0, 300), Epoch::new(1, 0), Epoch::end_of(u64::MAX)];
        assert!(epochs.windows(2).all(|w| w[0] < w[1] && w[0].key() < w[1].key()));
        assert!(epochs.iter().all(|e| Epoch::from_key(&e.key()) == Some(*e)));
    }
}
