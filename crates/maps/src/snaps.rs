//! Sets of snapshot ids as intervals (`interval_set<snapid_t>`).
//!
//! Invariant: intervals made here do not overlap or touch. Decoded ones are kept as they came.

use std::collections::BTreeMap;

use spirula_wire::Denc;

/// Start -> length.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
pub struct SnapIntervals(pub BTreeMap<u64, u64>);

impl SnapIntervals {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, snap: u64) -> bool {
        let before = self.0.range(..=snap).next_back();
        before.is_some_and(|(&start, &len)| snap - start < len)
    }

    pub fn one(snap: u64) -> Self {
        Self([(snap, 1)].into())
    }

    /// How many ids are in the set.
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, len| sum.saturating_add(*len))
    }

    /// The ids that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        rest.subtract(other);
        let mut both = self.clone();
        both.subtract(&rest);
        both
    }

    /// The lowest `n` ids.
    pub fn first(&self, n: u64) -> Self {
        let mut left = n;
        let mut lowest = Self::default();
        for (start, len) in self.iter() {
            lowest.insert(start, len.min(left));
            left -= len.min(left);
        }
        lowest
    }

    /// `(start, length)`, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(&start, &len)| (start, len))
    }

    /// Adds `start..start + len`, joining what it overlaps or touches.
    pub fn insert(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        let (mut start, mut end) = (start, start.saturating_add(len));
        if let Some((&s, &l)) = self.0.range(..=start).next_back()
            && s.saturating_add(l) >= start
        {
            (start, end) = (s, end.max(s.saturating_add(l)));
        }
        let joined: Vec<u64> = self.0.range(start..=end).map(|(&s, _)| s).collect();
        for s in joined {
            end = end.max(s.saturating_add(self.0.remove(&s).unwrap_or(0)));
        }
        self.0.insert(start, end - start);
    }

    /// Removes `start..start + len`, as far as it is there.
    pub fn remove(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        let overlapping: Vec<(u64, u64)> = self
            .0
            .range(..end)
            .map(|(&s, &l)| (s, s.saturating_add(l)))
            .filter(|&(_, e)| e > start)
            .collect();
        for (s, e) in overlapping {
            self.0.remove(&s);
            if s < start {
                self.0.insert(s, start - s);
            }
            if e > end {
                self.0.insert(end, e - end);
            }
        }
    }

    pub fn union(&mut self, other: &Self) {
        other.iter().for_each(|(start, len)| self.insert(start, len));
    }

    pub fn subtract(&mut self, other: &Self) {
        other.iter().for_each(|(start, len)| self.remove(start, len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_sets_share() {
        let a = SnapIntervals([(1, 4), (10, 5)].into());
        let b = SnapIntervals([(3, 9), (14, 7)].into());
        assert_eq!(a.intersection(&b).0, [(3, 2), (10, 2), (14, 1)].into());
        assert!(a.intersection(&SnapIntervals::default()).is_empty());
        assert_eq!(a.count(), 9);
        assert_eq!(a.first(6).0, [(1, 4), (10, 2)].into());
        assert_eq!((a.first(0), a.first(99)), (SnapIntervals::default(), a));
    }

    #[test]
    fn intervals_join_and_split() {
        let mut set = SnapIntervals::default();
        set.insert(1, 2);
        set.insert(5, 1);
        set.insert(3, 2);
        assert_eq!(set.0, [(1, 5)].into());
        set.remove(2, 2);
        assert_eq!(set.0, [(1, 1), (4, 2)].into());
        assert!(set.contains(5) && !set.contains(3) && !set.contains(6));
        set.insert(u64::MAX, 5);
        set.remove(0, u64::MAX);
        assert!(set.is_empty() || set.0.len() == 1);
    }
}
