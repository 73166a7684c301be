//! One bucket and its five algorithms' own data; adding, removing and weighing its items.
//!
//! Invariant: the derived numbers (sums, tree nodes, straws) follow the item weights after every
//! edit here. A *decoded* bucket may break that; readers must not rely on it for memory safety.

/// Bucket algorithm numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alg {
    Uniform = 1,
    List = 2,
    Tree = 3,
    Straw = 4,
    Straw2 = 5,
}

impl Alg {
    pub const ALL: [Self; 5] = [Self::Uniform, Self::List, Self::Tree, Self::Straw, Self::Straw2];

    pub fn from_wire(alg: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&a| a as u32 == alg)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::List => "list",
            Self::Tree => "tree",
            Self::Straw => "straw",
            Self::Straw2 => "straw2",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Negative.
    pub id: i32,
    pub type_: u16,
    pub hash: u8,
    /// Sum of the items' weights, 16.16 fixed point.
    pub weight: u32,
    /// Devices (>= 0) and buckets (< 0).
    pub items: Vec<i32>,
    pub data: BucketData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketData {
    Uniform {
        item_weight: u32,
    },
    List {
        item_weights: Vec<u32>,
        sum_weights: Vec<u32>,
    },
    /// A complete binary tree in in-order numbering; item `i` is the leaf `2 i + 1`.
    Tree {
        node_weights: Vec<u32>,
    },
    Straw {
        item_weights: Vec<u32>,
        straws: Vec<u32>,
    },
    Straw2 {
        item_weights: Vec<u32>,
    },
}

impl Bucket {
    /// A bucket of weighted items. A uniform bucket takes the first weight for all.
    pub fn new(id: i32, type_: u16, alg: Alg, straw_version: u8, items: &[(i32, u32)]) -> Self {
        let data = match alg {
            Alg::Uniform => {
                BucketData::Uniform { item_weight: items.first().map_or(0, |&(_, w)| w) }
            }
            Alg::List => BucketData::List { item_weights: vec![], sum_weights: vec![] },
            Alg::Tree => BucketData::Tree { node_weights: vec![] },
            Alg::Straw => BucketData::Straw { item_weights: vec![], straws: vec![] },
            Alg::Straw2 => BucketData::Straw2 { item_weights: vec![] },
        };
        let hash = crate::hash::HASH_RJENKINS1;
        let mut bucket = Self { id, type_, hash, weight: 0, items: vec![], data };
        let weights: Vec<u32> = items.iter().map(|&(_, w)| w).collect();
        bucket.items = items.iter().map(|&(item, _)| item).collect();
        bucket.rebuild(&weights, straw_version);
        bucket
    }

    pub fn alg(&self) -> Alg {
        match self.data {
            BucketData::Uniform { .. } => Alg::Uniform,
            BucketData::List { .. } => Alg::List,
            BucketData::Tree { .. } => Alg::Tree,
            BucketData::Straw { .. } => Alg::Straw,
            BucketData::Straw2 { .. } => Alg::Straw2,
        }
    }

    /// Weight of the item at `position`, 16.16 fixed point; 0 if there is none.
    pub fn item_weight(&self, position: usize) -> u32 {
        let weight = match &self.data {
            BucketData::Uniform { item_weight } => Some(item_weight),
            BucketData::List { item_weights, .. }
            | BucketData::Straw { item_weights, .. }
            | BucketData::Straw2 { item_weights } => item_weights.get(position),
            BucketData::Tree { node_weights } => node_weights.get(leaf(position)),
        };
        weight.copied().unwrap_or(0)
    }

    pub fn weights(&self) -> Vec<u32> {
        (0..self.items.len()).map(|i| self.item_weight(i)).collect()
    }

    pub(crate) fn add_item(&mut self, item: i32, weight: u32, straw_version: u8) {
        let mut weights = self.weights();
        if let (BucketData::Uniform { item_weight }, []) = (&mut self.data, &self.items[..]) {
            *item_weight = weight;
        }
        self.items.push(item);
        weights.push(weight);
        self.rebuild(&weights, straw_version);
    }

    /// Removes the item at `position`. A tree keeps an empty leaf, or else all would move.
    pub(crate) fn remove_at(&mut self, position: usize, straw_version: u8) {
        let mut weights = self.weights();
        if let BucketData::Tree { .. } = self.data {
            self.items[position] = 0;
            weights[position] = 0;
            let used = weights.iter().rposition(|&w| w != 0).map_or(0, |last| last + 1);
            self.items.truncate(used);
            weights.truncate(used);
        } else {
            self.items.remove(position);
            weights.remove(position);
        }
        self.rebuild(&weights, straw_version);
    }

    pub(crate) fn set_item_weight(&mut self, position: usize, weight: u32, straw_version: u8) {
        let mut weights = self.weights();
        if let BucketData::Uniform { item_weight } = &mut self.data {
            *item_weight = weight;
            weights.fill(weight);
        } else {
            weights[position] = weight;
        }
        self.rebuild(&weights, straw_version);
    }

    /// Derives everything from the items' weights.
    fn rebuild(&mut self, weights: &[u32], straw_version: u8) {
        debug_assert_eq!(weights.len(), self.items.len());
        let sum = |weights: &[u32]| weights.iter().fold(0u32, |sum, &w| sum.saturating_add(w));
        match &mut self.data {
            BucketData::Uniform { item_weight } => {
                self.weight = item_weight.saturating_mul(weights.len() as u32);
                return;
            }
            BucketData::List { item_weights, sum_weights } => {
                *item_weights = weights.to_vec();
                *sum_weights = (1..=weights.len()).map(|n| sum(&weights[..n])).collect();
            }
            BucketData::Tree { node_weights } => *node_weights = tree_nodes(weights),
            BucketData::Straw { item_weights, straws } => {
                *item_weights = weights.to_vec();
                *straws = crate::weights::straws(weights, straw_version);
            }
            BucketData::Straw2 { item_weights } => *item_weights = weights.to_vec(),
        }
        self.weight = sum(weights);
    }
}

/// Tree node of the item at `position`.
fn leaf(position: usize) -> usize {
    position * 2 + 1
}

/// Weights of all nodes of a tree over `weights`; a node's parent is one `height` bit away.
fn tree_nodes(weights: &[u32]) -> Vec<u32> {
    if weights.is_empty() {
        return Vec::new();
    }
    let depth = 1 + (weights.len() - 1).checked_ilog2().map_or(0, |bits| bits + 1);
    let mut nodes = vec![0u32; 1 << depth];
    for (position, &weight) in weights.iter().enumerate() {
        let mut node = leaf(position);
        nodes[node] = weight;
        for _ in 1..depth {
            let height = node.trailing_zeros();
            let on_right = node & (2 << height) != 0;
            node = if on_right { node - (1 << height) } else { node + (1 << height) };
            nodes[node] = nodes[node].saturating_add(weight);
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEMS: [(i32, u32); 5] =
        [(0, 0x10000), (1, 0x20000), (2, 0x10000), (3, 0x8000), (4, 0x10000)];

    #[test]
    fn every_algorithm_keeps_its_weights_through_edits() {
        for alg in [Alg::List, Alg::Tree, Alg::Straw, Alg::Straw2] {
            let mut bucket = Bucket::new(-1, 1, alg, 1, &ITEMS);
            assert_eq!(bucket.weight, 0x58000, "{alg:?}");
            assert_eq!(bucket.weights(), ITEMS.map(|(_, w)| w), "{alg:?}");
            bucket.set_item_weight(1, 0x10000, 1);
            bucket.add_item(9, 0x10000, 1);
            bucket.remove_at(0, 1);
            assert_eq!(bucket.weight, 0x48000, "{alg:?}");
        }
    }

    #[test]
    fn a_tree_sums_its_nodes() {
        let bucket = Bucket::new(-1, 1, Alg::Tree, 1, &ITEMS[..3]);
        let BucketData::Tree { node_weights } = &bucket.data else { unreachable!() };
        let expected = [0, 0x10000, 0x30000, 0x20000, 0x40000, 0x10000, 0x10000, 0];
        assert_eq!(node_weights, &expected);
    }
}
