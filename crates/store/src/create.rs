//! What a log's first entry says: format, origin, the key that signs its heads, and the log it continues.

use ledger::cbor::{CborError, Reader, Writer};
use ledger::{KeyError, PublicKey};

use crate::schema::FORMAT;

const KEYS: [&str; 4] = ["format", "origin", "publicKey", "previousHead"];

/// Data of the entry of kind `log.created`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) origin: String,
    pub(crate) public_key: [u8; 32],
    /// The last head of the log that this one was restored or imported from, as text.
    pub(crate) previous_head: Option<String>,
}

impl Created {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.map(KEYS.len());
        out.text(KEYS[0]).int(FORMAT);
        out.text(KEYS[1]).text(&self.origin);
        out.text(KEYS[2]).bytes(&self.public_key);
        out.text(KEYS[3])
            .optional_text(self.previous_head.as_deref());
        out.finish()
    }

    pub(crate) fn decode(data: &[u8]) -> Result<Created, CborError> {
        let mut input = Reader::new(data);
        if input.map()? != KEYS.len() as u64 || input.text()? != KEYS[0] || input.int()? != FORMAT {
            return Err(CborError::WrongType);
        }
        expect(&mut input, KEYS[1])?;
        let origin = input.text()?.to_owned();
        expect(&mut input, KEYS[2])?;
        let public_key = input
            .bytes()?
            .try_into()
            .map_err(|_| CborError::OutOfRange)?;
        expect(&mut input, KEYS[3])?;
        let previous_head = input.optional_text()?.map(str::to_owned);
        input.finish()?;
        Ok(Created {
            origin,
            public_key,
            previous_head,
        })
    }

    /// The log's key, named by its origin.
    pub(crate) fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::new(&self.origin, self.public_key)
    }
}

fn expect(input: &mut Reader<'_>, key: &str) -> Result<(), CborError> {
    if input.text()? == key {
        Ok(())
    } else {
        Err(CborError::WrongType)
    }
}
