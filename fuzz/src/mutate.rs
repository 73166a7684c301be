//! Deterministic mutation of corpus inputs: flips, splices, cuts, and integers at their limits
//! (lengths and counts are where decoders break).

const INPUT_BYTES_MAX: usize = 1 << 16;
const INTERESTING: &[u64] =
    &[0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// SplitMix64: tiny, seedable, good enough to pick mutations.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }
}

/// A mutated copy of one input of `corpus`.
pub fn next(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut out = corpus[rng.below(corpus.len())].clone();
    for _ in 0..=rng.below(4) {
        mutate(rng, &mut out, corpus);
    }
    out.truncate(INPUT_BYTES_MAX);
    out
}

fn mutate(rng: &mut Rng, out: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = rng.below(out.len());
    match rng.below(6) {
        0 if !out.is_empty() => out[at] ^= 1 << rng.below(8),
        1 if !out.is_empty() => out[at] = rng.next() as u8,
        2 => out.truncate(at),
        3 => overwrite_integer(rng, out, at),
        4 => {
            let other = &corpus[rng.below(corpus.len())];
            let from = rng.below(other.len());
            out.truncate(at);
            out.extend_from_slice(&other[from..]);
        }
        _ => {
            let count = rng.below(16);
            let fill = rng.next() as u8;
            out.splice(at..at, std::iter::repeat_n(fill, count));
        }
    }
}

fn overwrite_integer(rng: &mut Rng, out: &mut [u8], at: usize) {
    let width = [1, 2, 4, 8][rng.below(4)];
    let value = INTERESTING[rng.below(INTERESTING.len())].to_le_bytes();
    for (to, from) in out[at..].iter_mut().zip(&value[..width]) {
        *to = *from;
    }
}

/// The file name of a kept input.
pub fn name(bytes: &[u8]) -> String {
    format!("{:016x}", digest(bytes))
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}
