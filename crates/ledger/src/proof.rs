//! Inclusion and consistency proofs: made by RFC 6962 section 2.1, checked by RFC 9162 sections 2.1.3.2 and 2.1.4.2.
//!
//! The makers work on a slice of leaf hashes and hash all of it; whoever serves proofs often gives them subtrees from a
//! cache instead. The checkers take what a stranger sent: they must neither fail loudly nor believe.

use crate::tree::{Hash, node_hash, root_of};

/// Path from leaf `index` to the root over `leaves`; `None` if there is no such leaf.
pub fn inclusion_path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = leaves.split_at(split_of(leaves.len()));
    let (inside, index, beside) = if index < left.len() {
        (left, index, right)
    } else {
        (right, index - left.len(), left)
    };
    let mut path = inclusion_path(inside, index)?;
    path.push(root_of(beside));
    Some(path)
}

/// Proof that the tree over the first `old_size` leaves is a prefix of the tree over all; `None` if there is none to
/// give (`old_size` 0 or beyond the leaves).
pub fn consistency_path(leaves: &[Hash], old_size: usize) -> Option<Vec<Hash>> {
    if old_size == 0 || old_size > leaves.len() {
        return None;
    }
    Some(consistency_subpath(leaves, old_size, true))
}

fn consistency_subpath(leaves: &[Hash], old_size: usize, known_root: bool) -> Vec<Hash> {
    if old_size == leaves.len() {
        return if known_root {
            Vec::new()
        } else {
            vec![root_of(leaves)]
        };
    }
    let (left, right) = leaves.split_at(split_of(leaves.len()));
    if old_size <= left.len() {
        let mut path = consistency_subpath(left, old_size, known_root);
        path.push(root_of(right));
        path
    } else {
        let mut path = consistency_subpath(right, old_size - left.len(), false);
        path.push(root_of(left));
        path
    }
}

/// Largest power of two below `count`, which is at least 2.
fn split_of(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// Whether `path` shows that `leaf` is leaf `index` of the tree of `size` leaves with this root.
pub fn verify_inclusion(size: u64, root: &Hash, index: u64, leaf: &Hash, path: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` shows that the tree of `old_size` leaves is a prefix of the tree of `size` leaves.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    size: u64,
    root: &Hash,
    path: &[Hash],
) -> bool {
    if old_size == 0 || old_size > size {
        return false;
    }
    if old_size == size {
        return path.is_empty() && old_root == root;
    }
    let mut path = path.iter();
    // A complete old tree is a node of the new one: the path leaves out what the checker already has.
    let first = if old_size.is_power_of_two() {
        Some(old_root)
    } else {
        path.next()
    };
    let Some(first) = first else { return false };
    let shift = (old_size - 1).trailing_ones();
    let (mut node, mut last) = ((old_size - 1) >> shift, (size - 1) >> shift);
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *root
}
