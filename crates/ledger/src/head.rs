//! Heads: the signed size and root of a log, as in the C2SP `tlog-checkpoint` specification.
//!
//! The origin names workspace and incarnation, and the signing key bears the origin as its name, so a head of one log
//! can't be shown for another. A restored or imported log is a new incarnation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::note::{KeyError, Note, NoteError, NoteSignature, PublicKey, SigningKey, is_key_name};
use crate::tree::Hash;

const ORIGIN_PREFIX: &str = "mainstay.dev/log/";

/// Why text is not a head of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    #[error("head is not a signed note")]
    Note(#[from] NoteError),
    #[error("head does not consist of origin, size and root")]
    Lines,
    #[error("head's origin is not a log's")]
    Origin,
    #[error("head can't be signed under its origin")]
    Key(#[from] KeyError),
}

/// The origin line of a workspace's log.
pub fn origin(workspace: &str, incarnation: &[u8; 16]) -> Result<String, HeadError> {
    let origin = format!("{ORIGIN_PREFIX}{workspace}/{}", hex::encode(incarnation));
    let fits = !workspace.is_empty()
        && workspace.len() <= 256
        && !workspace.contains('/')
        && is_key_name(&origin);
    if fits {
        Ok(origin)
    } else {
        Err(HeadError::Origin)
    }
}

/// The incarnation that an origin names, in hex.
pub fn incarnation_of(origin: &str) -> Option<&str> {
    origin
        .strip_prefix(ORIGIN_PREFIX)?
        .split_once('/')
        .map(|(_, incarnation)| incarnation)
}

/// Size and root of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

/// A head with its signatures, at least one; none of them checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    pub head: Head,
    pub signatures: Vec<NoteSignature>,
}

impl Head {
    /// What is signed.
    pub fn text(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            STANDARD.encode(self.root)
        )
    }

    fn parse(text: &str) -> Result<Head, HeadError> {
        let mut lines = text.strip_suffix('\n').ok_or(HeadError::Lines)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(HeadError::Lines);
        };
        let root = STANDARD.decode(root).map_err(|_| HeadError::Lines)?;
        let head = Head {
            origin: origin.to_owned(),
            size: size.parse().map_err(|_| HeadError::Lines)?,
            root: root.try_into().map_err(|_| HeadError::Lines)?,
        };
        // Leading zeros and the like: there is one text for a head.
        if head.text() == text {
            Ok(head)
        } else {
            Err(HeadError::Lines)
        }
    }
}

impl SignedHead {
    pub fn sign(head: Head, key: &SigningKey) -> Result<SignedHead, HeadError> {
        let signature = key.sign(head.text().as_bytes());
        let key = key.public_key(&head.origin)?;
        Ok(SignedHead::with_signature(head, &key, &signature))
    }

    /// Puts a head together again from what a database keeps of it.
    pub fn with_signature(head: Head, key: &PublicKey, signature: &[u8]) -> SignedHead {
        let line = NoteSignature {
            name: key.name().to_owned(),
            key_id: key.id(),
            signature: signature.to_owned(),
        };
        SignedHead {
            head,
            signatures: vec![line],
        }
    }

    /// Reads a signed note. `to_text` of the result is, byte for byte, what was read.
    pub fn parse(text: &str) -> Result<SignedHead, HeadError> {
        let note = Note::parse(text)?;
        Ok(SignedHead {
            head: Head::parse(&note.text)?,
            signatures: note.signatures,
        })
    }

    pub fn to_text(&self) -> String {
        self.note().to_text()
    }

    /// Whether the log's own key signed it: the key must bear the head's origin as its name.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.name() == self.head.origin && self.note().is_signed_by(key)
    }

    fn note(&self) -> Note {
        Note {
            text: self.head.text(),
            signatures: self.signatures.clone(),
        }
    }
}
