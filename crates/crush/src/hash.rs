//! Hashes that placement stands on: Robert Jenkins' 32-bit mix over one to five words, and the two
//! string hashes that turn object names into placement seeds.
//!
//! Invariant: all results are protocol constants; clients compute the same ones.

const SEED: u32 = 1_315_423_911;
const X: u32 = 231_232;
const Y: u32 = 1_232;

/// The only bucket hash there is (`hash` byte of a bucket); others hash to 0.
pub const HASH_RJENKINS1: u8 = 0;

/// Object name hash of a pool: the dcache hash of Linux.
pub const STR_HASH_LINUX: u8 = 1;
/// Object name hash of a pool: Robert Jenkins' (the default).
pub const STR_HASH_RJENKINS: u8 = 2;

macro_rules! sub_xor {
    ($a:ident, $b:ident, $c:ident, $shifted:expr) => {
        $a = $a.wrapping_sub($b).wrapping_sub($c) ^ $shifted;
    };
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    sub_xor!(a, b, c, (c >> 13));
    sub_xor!(b, c, a, (a << 8));
    sub_xor!(c, a, b, (b >> 13));
    sub_xor!(a, b, c, (c >> 12));
    sub_xor!(b, c, a, (a << 16));
    sub_xor!(c, a, b, (b >> 5));
    sub_xor!(a, b, c, (c >> 3));
    sub_xor!(b, c, a, (a << 10));
    sub_xor!(c, a, b, (b >> 15));
    (a, b, c)
}

pub fn hash32_1(a: u32) -> u32 {
    let (_, _, hash) = mix(a, X, SEED ^ a);
    mix(Y, a, hash).2
}

pub fn hash32_2(a: u32, b: u32) -> u32 {
    let (a, b, hash) = mix(a, b, SEED ^ a ^ b);
    let (_, _, hash) = mix(X, a, hash);
    mix(b, Y, hash).2
}

pub fn hash32_3(a: u32, b: u32, c: u32) -> u32 {
    let (a, b, hash) = mix(a, b, SEED ^ a ^ b ^ c);
    let (c, x, hash) = mix(c, X, hash);
    let (y, _, hash) = mix(Y, a, hash);
    let (_, _, hash) = mix(b, x, hash);
    mix(y, c, hash).2
}

pub fn hash32_4(a: u32, b: u32, c: u32, d: u32) -> u32 {
    let (a, b, hash) = mix(a, b, SEED ^ a ^ b ^ c ^ d);
    let (c, d, hash) = mix(c, d, hash);
    let (_, x, hash) = mix(a, X, hash);
    let (y, _, hash) = mix(Y, b, hash);
    let (_, _, hash) = mix(c, x, hash);
    mix(y, d, hash).2
}

pub fn hash32_5(a: u32, b: u32, c: u32, d: u32, e: u32) -> u32 {
    let (a, b, hash) = mix(a, b, SEED ^ a ^ b ^ c ^ d ^ e);
    let (c, d, hash) = mix(c, d, hash);
    let (e, x, hash) = mix(e, X, hash);
    let (y, _, hash) = mix(Y, a, hash);
    let (_, x, hash) = mix(b, x, hash);
    let (y, _, hash) = mix(y, c, hash);
    let (_, _, hash) = mix(d, x, hash);
    mix(y, e, hash).2
}

/// The hash of `name` by the pool's `object_hash`; all ones for a hash that does not exist.
pub fn str_hash(kind: u8, name: &[u8]) -> u32 {
    match kind {
        STR_HASH_LINUX => str_hash_linux(name),
        STR_HASH_RJENKINS => str_hash_rjenkins(name),
        _ => u32::MAX,
    }
}

pub fn str_hash_rjenkins(name: &[u8]) -> u32 {
    const GOLDEN: u32 = 0x9e37_79b9;
    let (mut a, mut b, mut c) = (GOLDEN, GOLDEN, 0u32);
    let (blocks, tail) = name.as_chunks::<12>();
    for block in blocks {
        a = a.wrapping_add(word(&block[..4]));
        b = b.wrapping_add(word(&block[4..8]));
        c = c.wrapping_add(word(&block[8..]));
        (a, b, c) = mix(a, b, c);
    }
    // The lowest byte of `c` belongs to the length.
    c = c.wrapping_add(name.len() as u32);
    a = a.wrapping_add(word(tail));
    b = b.wrapping_add(word(tail.get(4..).unwrap_or_default()));
    c = c.wrapping_add(word(tail.get(8..).unwrap_or_default()) << 8);
    mix(a, b, c).2
}

pub fn str_hash_linux(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |hash, &byte| {
        let c = u32::from(byte);
        hash.wrapping_add(c << 4).wrapping_add(c >> 4).wrapping_mul(11)
    })
}

/// Up to four bytes, little-endian.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_hashes_have_their_known_values() {
        // `ceph osd map` of Ceph 16.2.15 for objects of these names.
        assert_eq!(str_hash_rjenkins(b""), 0xbd49_d10d);
        assert_eq!(str_hash_rjenkins(b"foo"), 0x7fc1_f406);
        assert_eq!(str_hash(0, b"foo"), u32::MAX);
    }
}
