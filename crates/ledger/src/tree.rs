//! RFC 6962 hashing and the tree's right edge, which is all a writer needs to append and to state the root.
//!
//! The edge of a tree of n leaves is one hash per set bit of n, widest subtree first. Appending costs one hash per
//! carry, and a log of any length starts from at most 64 hashes.

use aws_lc_rs::digest::{Context, SHA256};
use thiserror::Error;

use crate::cbor::{CborError, Reader, Writer};

/// A SHA-256.
pub type Hash = [u8; 32];

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = Hash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Hash of a leaf, RFC 6962 section 2.1.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0x00], entry])
}

/// Hash of an inner node, RFC 6962 section 2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[0x01], left, right])
}

/// Root of the tree over these leaf hashes; the empty tree's is the hash of nothing.
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut edge = Edge::default();
    for leaf in leaves {
        edge.push(*leaf);
    }
    edge.root()
}

/// The right edge of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    nodes: Vec<Hash>,
}

/// Why bytes are not an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EdgeError {
    #[error("bytes are not the deterministic encoding of a tree's right edge")]
    Encoding(#[source] CborError),
    #[error("an edge of size {size} can't have {nodes} nodes")]
    NodeCount { size: u64, nodes: u64 },
}

impl From<CborError> for EdgeError {
    fn from(source: CborError) -> EdgeError {
        EdgeError::Encoding(source)
    }
}

impl Edge {
    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends one leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        // Each trailing one bit of the size is a complete subtree that the new leaf completes into a wider one.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        self.size += 1;
    }

    pub fn root(&self) -> Hash {
        let mut nodes = self.nodes.iter().rev();
        let Some(last) = nodes.next() else {
            return sha256(&[]);
        };
        nodes.fold(*last, |right, left| node_hash(left, &right))
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.array(2).uint(self.size).array(self.nodes.len());
        for node in &self.nodes {
            out.bytes(node);
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Edge, EdgeError> {
        let mut input = Reader::new(bytes);
        if input.array()? != 2 {
            return Err(CborError::WrongType.into());
        }
        let size = input.uint()?;
        let count = input.array()?;
        if count != u64::from(size.count_ones()) {
            return Err(EdgeError::NodeCount { size, nodes: count });
        }
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(
                input
                    .bytes()?
                    .try_into()
                    .map_err(|_| CborError::OutOfRange)?,
            );
        }
        input.finish()?;
        Ok(Edge { size, nodes })
    }
}
