//! Inclusion proofs of many entries against one head, made in one walk over the leaves.
//!
//! The walk keeps the tree's right edge and, at each of its nodes, which of the wanted leaves lie below: two nodes that
//! become one are each other's siblings, and that is the next hash of those leaves' paths. So it holds the paths that
//! it makes and a few dozen hashes, however long the log is.

use crate::tree::{Hash, node_hash};

/// The walk.
#[derive(Debug, Default)]
pub struct Paths {
    size: u64,
    edge: Vec<Node>,
    paths: Vec<Vec<Hash>>,
}

#[derive(Debug)]
struct Node {
    hash: Hash,
    /// Places in `paths`.
    below: Vec<usize>,
}

impl Paths {
    /// Takes the next leaf; `wanted` if its path is.
    pub fn push(&mut self, leaf: Hash, wanted: bool) {
        let mut below = Vec::new();
        if wanted {
            below.push(self.paths.len());
            self.paths.push(Vec::new());
        }
        self.edge.push(Node { hash: leaf, below });
        for _ in 0..self.size.trailing_ones() {
            self.join();
        }
        self.size += 1;
    }

    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The paths of the wanted leaves in their order, to the root over all leaves.
    pub fn finish(mut self) -> Vec<Vec<Hash>> {
        while self.edge.len() > 1 {
            self.join();
        }
        self.paths
    }

    /// Makes one node of the last two.
    fn join(&mut self) {
        let (Some(right), Some(left)) = (self.edge.pop(), self.edge.pop()) else {
            return;
        };
        for at in &left.below {
            self.paths[*at].push(right.hash);
        }
        for at in &right.below {
            self.paths[*at].push(left.hash);
        }
        let mut below = left.below;
        below.extend(right.below);
        let hash = node_hash(&left.hash, &right.hash);
        self.edge.push(Node { hash, below });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inclusion_path, leaf_hash};

    #[test]
    fn one_walk_gives_the_paths_that_a_slice_does() {
        for size in 0..70_usize {
            let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            for every in 1..5 {
                let mut paths = Paths::default();
                let mut expected = Vec::new();
                for (index, leaf) in leaves.iter().enumerate() {
                    let wanted = index % every == 0;
                    paths.push(*leaf, wanted);
                    expected.extend(inclusion_path(&leaves, index).filter(|_| wanted));
                }
                assert_eq!(paths.size(), size as u64);
                assert_eq!(paths.finish(), expected, "each {every}th of {size}");
            }
        }
    }
}
