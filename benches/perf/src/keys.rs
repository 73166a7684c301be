//! Which key is next: uniform, or a few keys more often than the others (Zipf's law).
//!
//! Invariant: the same seed gives the same keys, for every engine.

/// A small fast generator (SplitMix64): its cost counts as the engine's.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Chooses keys `0..count`.
#[derive(Clone, Debug)]
pub struct Keys {
    count: u64,
    rng: Rng,
    zipf: Option<Zipf>,
}

impl Keys {
    /// `theta` between 0 and 1 (both excluded) is the skew; `None` is uniform.
    pub fn new(count: u64, theta: Option<f64>, seed: u64) -> Keys {
        let zipf = theta.map(|theta| Zipf::new(count, theta));
        Keys { count, rng: Rng::new(seed), zipf }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn next_key(&mut self) -> u64 {
        match &self.zipf {
            None => self.rng.below(self.count),
            // Spread out: the popular keys should not be neighbours in the tree.
            Some(zipf) => mix(zipf.rank(self.rng.unit())) % self.count,
        }
    }
}

/// Gray et al., "Quickly generating billion-record synthetic databases", as YCSB uses it.
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64, theta: f64) -> Zipf {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-theta)).sum::<f64>();
        let all = zeta(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / all);
        Zipf { count: count as f64, theta, alpha: 1.0 / (1.0 - theta), zeta: all, eta }
    }

    /// The rank (0 is the most popular) at `u` of the distribution.
    fn rank(&self, u: f64) -> u64 {
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.count * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(theta: Option<f64>) -> Vec<u64> {
        let mut keys = Keys::new(100, theta, 1);
        let mut out = vec![0; 100];
        (0..100_000).for_each(|_| out[keys.next_key() as usize] += 1);
        out
    }

    #[test]
    fn uniform_keys_come_equally_often() {
        assert!(counts(None).iter().all(|&n| (800..1200).contains(&n)));
    }

    #[test]
    fn the_most_popular_of_skewed_keys_has_its_share_by_zipf() {
        let mut counts = counts(Some(0.99));
        counts.sort_unstable();
        // 1 / sum of i^-0.99 for i up to 100 is 19 %.
        assert!((17_000..22_000).contains(&counts[99]), "{}", counts[99]);
        assert!(counts[50] < 1_000);
    }
}
