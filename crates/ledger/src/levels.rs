//! A whole tree in memory, level by level, for whoever wants many inclusion proofs of one head: each then costs a few
//! dozen look-ups instead of a walk over all leaves.
//!
//! 64 bytes a leaf. Like everything here it is made of what it is given and believes nobody.

use crate::proof::split_of;
use crate::tree::{Hash, node_hash, root_of};

/// All complete subtrees over a list of leaves.
#[derive(Debug, Clone, Default)]
pub struct Levels {
    /// `levels[k][i]` is the root over the leaves `i << k` to `(i + 1) << k`; leaves that fill no such range are only in
    /// lower levels.
    levels: Vec<Vec<Hash>>,
}

impl Levels {
    pub fn new(leaves: Vec<Hash>) -> Levels {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|below| below.len() > 1) {
            let (pairs, _) = below.as_chunks::<2>();
            let above = pairs.iter().map(|[left, right]| node_hash(left, right));
            levels.push(above.collect());
        }
        Levels { levels }
    }

    /// Number of leaves.
    pub fn size(&self) -> usize {
        self.levels.first().map_or(0, Vec::len)
    }

    pub fn root(&self) -> Hash {
        match self.size() {
            0 => root_of(&[]),
            size => self.root_over(0, size),
        }
    }

    /// Path from leaf `index` to the root, as [`crate::inclusion_path`] gives it.
    pub fn inclusion_path(&self, index: usize) -> Option<Vec<Hash>> {
        let (mut from, mut to) = (0, self.size());
        if index >= to {
            return None;
        }
        let mut path = Vec::new();
        while to - from > 1 {
            let middle = from + split_of(to - from);
            if index < middle {
                path.push(self.root_over(middle, to));
                to = middle;
            } else {
                path.push(self.root_over(from, middle));
                from = middle;
            }
        }
        path.reverse();
        Some(path)
    }

    /// Root over the leaves of a range that the tree has as a node: it begins where a subtree of its width does.
    fn root_over(&self, from: usize, to: usize) -> Hash {
        let width = to - from;
        if width.is_power_of_two() {
            let level = width.trailing_zeros() as usize;
            return self.levels[level][from >> level];
        }
        let middle = from + split_of(width);
        node_hash(&self.root_over(from, middle), &self.root_over(middle, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inclusion_path, leaf_hash, verify_inclusion};

    #[test]
    fn a_tree_in_levels_gives_the_root_and_the_paths_that_a_slice_does() {
        for size in 0..70_usize {
            let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            let levels = Levels::new(leaves.clone());
            assert_eq!((levels.size(), levels.root()), (size, root_of(&leaves)));
            for index in 0..=size {
                let path = levels.inclusion_path(index);
                assert_eq!(path, inclusion_path(&leaves, index), "{index} of {size}");
                let Some(path) = path else { continue };
                assert!(verify_inclusion(
                    size as u64,
                    &levels.root(),
                    index as u64,
                    &leaves[index],
                    &path
                ));
            }
        }
    }
}
