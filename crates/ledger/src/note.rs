//! Signed notes and their Ed25519 keys, as in the C2SP `signed-note` specification.
//!
//! A note is text that ends in a newline, an empty line, and one line per signature. Reading is strict: what is written
//! back is, byte for byte, what was read. Keys of other algorithms may stand beside ours and are passed over.

use std::fmt::Write as _;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::tree::sha256;

const ED25519_ALGORITHM: u8 = 0x01;
const SIGNATURE_MARK: &str = "\u{2014} ";
const KEY_ID_BYTES: usize = 4;
const MAX_NOTE_BYTES: usize = 64 * 1024;
const MAX_SIGNATURES: usize = 64;

/// Why a key's text or bytes are not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("key is not written as name+id+key")]
    Form,
    #[error("key's id does not belong to its name and bytes")]
    WrongId,
    #[error("key is not an ed25519 key")]
    Algorithm,
    #[error("seed is not an ed25519 seed")]
    Seed,
}

/// Why text is not a signed note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoteError {
    #[error("note is longer than {MAX_NOTE_BYTES} bytes")]
    TooLong,
    #[error("note has no empty line before its signatures")]
    NoSignatures,
    #[error("note has a malformed signature line")]
    SignatureLine,
    #[error("note is not in the one form it is written in")]
    NotCanonical,
}

/// Text with its signatures, none of them checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What is signed; ends in a newline.
    pub text: String,
    pub signatures: Vec<NoteSignature>,
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    pub name: String,
    pub key_id: [u8; KEY_ID_BYTES],
    pub signature: Vec<u8>,
}

impl Note {
    pub fn parse(note: &str) -> Result<Note, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        let split = note.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::SignatureLine)?;
        let signatures = lines
            .split('\n')
            .map(NoteSignature::parse)
            .collect::<Result<Vec<_>, _>>()?;
        let parsed = Note {
            text: text.to_owned(),
            signatures,
        };
        if parsed.signatures.len() > MAX_SIGNATURES || parsed.to_text() != note {
            return Err(NoteError::NotCanonical);
        }
        Ok(parsed)
    }

    pub fn to_text(&self) -> String {
        let mut note = format!("{}\n", self.text);
        for line in &self.signatures {
            let blob = STANDARD.encode([&line.key_id[..], &line.signature].concat());
            let _ = writeln!(note, "{SIGNATURE_MARK}{} {blob}", line.name);
        }
        note
    }

    /// Whether one of the signatures is this key's and holds.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let id = key.id();
        self.signatures
            .iter()
            .filter(|line| line.name == key.name && line.key_id == id)
            .any(|line| key.verifies(self.text.as_bytes(), &line.signature))
    }
}

impl NoteSignature {
    fn parse(line: &str) -> Result<NoteSignature, NoteError> {
        let rest = line
            .strip_prefix(SIGNATURE_MARK)
            .ok_or(NoteError::SignatureLine)?;
        let (name, blob) = rest.split_once(' ').ok_or(NoteError::SignatureLine)?;
        let blob = STANDARD
            .decode(blob)
            .map_err(|_| NoteError::SignatureLine)?;
        let (key_id, signature) = blob.split_first_chunk().ok_or(NoteError::SignatureLine)?;
        if !is_key_name(name) {
            return Err(NoteError::SignatureLine);
        }
        Ok(NoteSignature {
            name: name.to_owned(),
            key_id: *key_id,
            signature: signature.to_owned(),
        })
    }
}

/// Key names are not empty and have neither spaces nor plus signs.
pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// A named Ed25519 key that checks notes. A log's key is named by its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    bytes: [u8; 32],
}

impl PublicKey {
    pub fn new(name: &str, bytes: [u8; 32]) -> Result<PublicKey, KeyError> {
        if is_key_name(name) {
            Ok(PublicKey {
                name: name.to_owned(),
                bytes,
            })
        } else {
            Err(KeyError::Form)
        }
    }

    /// Reads `name+id+key`.
    pub fn parse(text: &str) -> Result<PublicKey, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        let key = STANDARD.decode(key).map_err(|_| KeyError::Form)?;
        let (algorithm, bytes) = key.split_first().ok_or(KeyError::Form)?;
        if *algorithm != ED25519_ALGORITHM {
            return Err(KeyError::Algorithm);
        }
        let key = PublicKey::new(name, bytes.try_into().map_err(|_| KeyError::Algorithm)?)?;
        if hex::encode(key.id()) == id {
            Ok(key)
        } else {
            Err(KeyError::WrongId)
        }
    }

    /// The text that [`PublicKey::parse`] reads, to be kept elsewhere than the log.
    pub fn to_text(&self) -> String {
        let key = STANDARD.encode([&[ED25519_ALGORITHM], &self.bytes[..]].concat());
        format!("{}+{}+{key}", self.name, hex::encode(self.id()))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The first bytes of SHA-256(name, newline, algorithm, key).
    pub fn id(&self) -> [u8; KEY_ID_BYTES] {
        let hash = sha256(&[
            self.name.as_bytes(),
            &[b'\n', ED25519_ALGORITHM],
            &self.bytes,
        ]);
        [hash[0], hash[1], hash[2], hash[3]]
    }

    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(text, signature)
            .is_ok()
    }
}

/// The Ed25519 key that signs a log's heads. It has no name of its own: it signs under each log's origin.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl SigningKey {
    /// The seed is 32 random bytes that the caller keeps secret.
    pub fn from_seed(seed: &[u8; 32]) -> Result<SigningKey, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Seed)?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Seed)?;
        Ok(SigningKey { pair, public })
    }

    pub fn public_bytes(&self) -> &[u8; 32] {
        &self.public
    }

    /// The key under which signatures for `name` are checked.
    pub fn public_key(&self, name: &str) -> Result<PublicKey, KeyError> {
        PublicKey::new(name, self.public)
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(text).as_ref());
        signature
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("public", &hex::encode(self.public))
            .finish_non_exhaustive()
    }
}
