//! Straw lengths of the old straw buckets.
//!
//! Invariant: both versions of the calculation give Ceph's numbers, flaws included: the lengths are
//! stored in the map, and clients only read them.

/// Straw lengths, 16.16 fixed point, for items of these weights.
pub(crate) fn straws(weights: &[u32], version: u8) -> Vec<u32> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&i| weights[i]);

    let mut straws = vec![0; weights.len()];
    let mut left = weights.len() as i32;
    let (mut straw, mut below, mut last) = (1.0f64, 0.0f64, 0.0f64);
    for (at, &item) in order.iter().enumerate() {
        let weight = weights[item];
        if weight == 0 {
            // No straw at all; only the newer version takes it out of the count.
            left -= i32::from(version >= 1);
            continue;
        }
        straws[item] = (straw * f64::from(0x1_0000)) as u32;
        let Some(&next) = order.get(at + 1) else {
            break;
        };
        let next = weights[next];
        if version == 0 && next == weight {
            continue;
        }
        below += (f64::from(weight) - last) * f64::from(left);
        left -= match version {
            0 => order[at + 1..].iter().filter(|&&i| weights[i] == next).count() as i32,
            _ => 1,
        };
        let step = f64::from((left as u32).wrapping_mul(next - weight));
        let share = below / (below + step);
        straw *= (1.0 / share).powf(1.0 / f64::from(left));
        last = f64::from(weight);
    }
    straws
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_weights_have_equal_straws() {
        assert_eq!(straws(&[0x10000; 4], 1), [0x10000; 4]);
        assert_eq!(straws(&[0x10000; 4], 0), [0x10000; 4]);
        assert_eq!(straws(&[0, 0x10000, 0], 1), [0, 0x10000, 0]);
        assert!(straws(&[], 1).is_empty());
    }
}
