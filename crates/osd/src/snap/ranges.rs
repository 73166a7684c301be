//! Sets of byte ranges.
//!
//! Invariant: the ranges are sorted, none is empty, and no two overlap or touch.

/// Byte ranges of an object as (offset, length).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// `offset..offset + length`.
    pub fn of(offset: u64, length: u64) -> Self {
        let length = length.min(u64::MAX - offset);
        Self(if length == 0 { Vec::new() } else { vec![(offset, length)] })
    }

    /// Takes ranges in any order.
    pub fn collect(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut all: Vec<(u64, u64)> = ranges
            .into_iter()
            .map(|(offset, length)| (offset, offset.saturating_add(length)))
            .filter(|(from, to)| from < to)
            .collect();
        all.sort_unstable();
        let mut out: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (from, to) in all {
            match out.last_mut() {
                Some(last) if last.1 >= from => last.1 = last.1.max(to),
                _ => out.push((from, to)),
            }
        }
        Self(out.into_iter().map(|(from, to)| (from, to - from)).collect())
    }

    /// (offset, length), ascending.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Bytes in all ranges.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(_, length)| length).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn union(&self, other: &Self) -> Self {
        Self::collect(self.0.iter().chain(&other.0).copied())
    }

    pub fn intersection(&self, other: &Self) -> Self {
        let (mut out, mut i, mut j) = (Vec::new(), 0, 0);
        while let (Some(&(a, n)), Some(&(b, m))) = (self.0.get(i), other.0.get(j)) {
            let (from, to) = (a.max(b), (a + n).min(b + m));
            if from < to {
                out.push((from, to - from));
            }
            if a + n < b + m { i += 1 } else { j += 1 }
        }
        Self(out)
    }

    /// What is here and not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = Vec::with_capacity(self.0.len());
        let mut holes = other.0.iter().copied().peekable();
        for &(mut from, length) in &self.0 {
            let to = from + length;
            while let Some(&(hole, len)) = holes.peek() {
                if hole >= to {
                    break;
                }
                if hole > from {
                    out.push((from, hole - from));
                }
                from = from.max(hole + len);
                if hole + len > to {
                    break;
                }
                holes.next();
            }
            if from < to {
                out.push((from, to - from));
            }
        }
        Self(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(r: &Ranges) -> u32 {
        r.0.iter().map(|(at, n)| ((1u32 << n) - 1) << at).sum()
    }

    fn ranges(bits: u32) -> Ranges {
        Ranges::collect((0..16).filter(|i| bits >> i & 1 == 1).map(|i| (i, 1)))
    }

    #[test]
    fn sets_are_sets() {
        let mut x = 12345u32;
        for _ in 0..2000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (a, b) = (x >> 16, x & 0xffff & x >> 9);
            let (s, t) = (ranges(a), ranges(b));
            assert_eq!((bits(&s), bits(&t), s.len()), (a, b, u64::from(a.count_ones())));
            assert_eq!(s.union(&t), ranges(a | b));
            assert_eq!(s.intersection(&t), ranges(a & b));
            assert_eq!(s.difference(&t), ranges(a & !b));
        }
        assert!(Ranges::of(5, 0).is_empty());
    }
}
