//! Tree and proofs: the vectors of the certificate transparency test suite, and a naive tree as oracle.

use ledger::{
    Edge, Hash, consistency_path, inclusion_path, leaf_hash, node_hash, root_of,
    verify_consistency, verify_inclusion,
};
use proptest::prelude::*;

const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];

const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hash(text: &str) -> Hash {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn vector_leaves() -> Vec<Hash> {
    LEAVES
        .iter()
        .map(|leaf| leaf_hash(&hex::decode(leaf).unwrap()))
        .collect()
}

#[test]
fn roots_of_the_published_leaves_are_the_published_roots() {
    let leaves = vector_leaves();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(root_of(&leaves[..size]), hash(root), "size {size}");
    }
}

#[test]
fn proofs_of_the_published_leaves_are_the_published_proofs() {
    let leaves = vector_leaves();
    let first = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    assert_eq!(inclusion_path(&leaves, 0).unwrap(), first.map(hash));
    // RFC 6962 section 2.1.3, on its seven leaves: PROOF(3, D[7]) has four nodes, PROOF(4, D[7]) one.
    assert_eq!(consistency_path(&leaves[..7], 3).unwrap().len(), 4);
    assert_eq!(consistency_path(&leaves[..7], 4).unwrap().len(), 1);
}

/// The definition in RFC 6962 section 2.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves.len() {
        0 => hash(ROOTS[0]),
        1 => leaves[0],
        n => {
            let mut k = 1;
            while k * 2 < n {
                k *= 2;
            }
            node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

fn some_leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

#[test]
fn every_proof_of_every_small_tree_holds_and_no_neighbour_of_it_does() {
    for size in 1..40_usize {
        let leaves = some_leaves(size);
        let root = naive_root(&leaves);
        for index in 0..size {
            let path = inclusion_path(&leaves, index).unwrap();
            let holds = |size, index, path: &[Hash]| {
                verify_inclusion(
                    size,
                    &root,
                    index,
                    &leaves[usize::try_from(index).unwrap() % leaves.len()],
                    path,
                )
            };
            assert!(holds(size as u64, index as u64, &path));
            assert!(!holds(size as u64, size as u64, &path));
            assert!(
                !verify_inclusion(
                    size as u64,
                    &root,
                    (index as u64 + 1) % size as u64,
                    &leaves[index],
                    &path
                ) || size == 1
            );
            assert!(!holds(
                size as u64,
                index as u64,
                &[&path[..], &[root]].concat()
            ));
            if !path.is_empty() {
                assert!(!holds(size as u64, index as u64, &path[1..]));
            }
        }
        for old in 1..=size {
            let path = consistency_path(&leaves, old).unwrap();
            let old_root = naive_root(&leaves[..old]);
            assert!(
                verify_consistency(old as u64, &old_root, size as u64, &root, &path),
                "{old} of {size}"
            );
            assert!(!verify_consistency(
                old as u64,
                &leaf_hash(b"x"),
                size as u64,
                &root,
                &path
            ));
            assert!(!verify_consistency(
                old as u64,
                &old_root,
                size as u64,
                &leaf_hash(b"x"),
                &path
            ));
            assert!(!verify_consistency(
                old as u64,
                &old_root,
                size as u64,
                &root,
                &[&path[..], &[root]].concat()
            ));
        }
    }
}

#[test]
fn there_is_no_proof_for_what_is_not_there() {
    let leaves = some_leaves(3);
    assert_eq!(inclusion_path(&leaves, 3), None);
    assert_eq!(consistency_path(&leaves, 0), None);
    assert_eq!(consistency_path(&leaves, 4), None);
    assert!(!verify_consistency(
        0,
        &root_of(&[]),
        3,
        &root_of(&leaves),
        &[]
    ));
}

proptest! {
    #[test]
    fn the_edge_says_what_the_naive_tree_says(count in 0_usize..700) {
        let leaves = some_leaves(count);
        let mut edge = Edge::default();
        for leaf in &leaves {
            edge.push(*leaf);
        }
        prop_assert_eq!(edge.root(), naive_root(&leaves));
        prop_assert_eq!(edge.size(), count as u64);
        prop_assert_eq!(Edge::decode(&edge.encode()).unwrap(), edge);
    }

    #[test]
    fn an_edge_is_only_read_from_the_bytes_it_writes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(edge) = Edge::decode(&bytes) {
            prop_assert_eq!(edge.encode(), bytes);
        }
    }

    #[test]
    fn strangers_proofs_are_refused_without_failing(
        size in any::<u64>(), index in any::<u64>(), path in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        prop_assert!(!verify_inclusion(size, &[1; 32], index, &[2; 32], &path));
        prop_assert!(!verify_consistency(index, &[1; 32], size, &[2; 32], &path));
    }
}
