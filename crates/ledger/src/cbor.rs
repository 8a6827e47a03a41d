//! Deterministic CBOR (RFC 8949 section 4.2.1), as much of it as entries need: integers, byte and text strings, arrays,
//! maps and null.
//!
//! Written by hand because an entry's bytes are hashed: there must be exactly one encoding of a value, and the reader
//! must refuse every other one. General CBOR libraries accept what they would not write.

use thiserror::Error;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const NULL: u8 = 0xf6;

/// Why bytes are not the deterministic encoding of what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CborError {
    #[error("bytes end early")]
    Truncated,
    #[error("bytes go on after the end")]
    Trailing,
    #[error("a number or length is not in its shortest form")]
    NotShortest,
    #[error("another type of value stands here")]
    WrongType,
    #[error("text is not utf-8")]
    NotUtf8,
    #[error("a number or length is out of range")]
    OutOfRange,
}

/// Appends values to a buffer, each in its one deterministic form.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }

    pub fn array(&mut self, length: usize) -> &mut Writer {
        self.head(ARRAY, length as u64)
    }

    /// The caller writes `length` keys and values, keys in the order of their encodings.
    pub fn map(&mut self, length: usize) -> &mut Writer {
        self.head(MAP, length as u64)
    }

    pub fn uint(&mut self, value: u64) -> &mut Writer {
        self.head(UNSIGNED, value)
    }

    pub fn int(&mut self, value: i64) -> &mut Writer {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            // -1 - value never overflows for a negative value.
            Err(_) => self.head(NEGATIVE, (-1 - value).unsigned_abs()),
        }
    }

    pub fn text(&mut self, value: &str) -> &mut Writer {
        self.head(TEXT, value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
        self
    }

    pub fn bytes(&mut self, value: &[u8]) -> &mut Writer {
        self.head(BYTES, value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    pub fn optional_text(&mut self, value: Option<&str>) -> &mut Writer {
        if let Some(value) = value {
            return self.text(value);
        }
        self.bytes.push(NULL);
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Writer {
        let major = major << 5;
        let wide = value.to_be_bytes();
        match value {
            0..=23 => self.bytes.push(major | wide[7]),
            24..=0xff => self.bytes.extend_from_slice(&[major | 24, wide[7]]),
            0x100..=0xffff => {
                self.bytes.push(major | 25);
                self.bytes.extend_from_slice(&wide[6..]);
            }
            0x1_0000..=0xffff_ffff => {
                self.bytes.push(major | 26);
                self.bytes.extend_from_slice(&wide[4..]);
            }
            _ => {
                self.bytes.push(major | 27);
                self.bytes.extend_from_slice(&wide);
            }
        }
        self
    }
}

/// Reads values in order and refuses whatever [`Writer`] would not have written.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn array(&mut self) -> Result<u64, CborError> {
        self.expect(ARRAY)
    }

    /// The caller checks the keys and their order.
    pub fn map(&mut self) -> Result<u64, CborError> {
        self.expect(MAP)
    }

    pub fn uint(&mut self) -> Result<u64, CborError> {
        self.expect(UNSIGNED)
    }

    pub fn int(&mut self) -> Result<i64, CborError> {
        let (major, value) = self.head()?;
        let value = i64::try_from(value).map_err(|_| CborError::OutOfRange)?;
        match major {
            UNSIGNED => Ok(value),
            NEGATIVE => Ok(-1 - value),
            _ => Err(CborError::WrongType),
        }
    }

    pub fn text(&mut self) -> Result<&'a str, CborError> {
        let length = self.expect(TEXT)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| CborError::NotUtf8)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let length = self.expect(BYTES)?;
        self.take(length)
    }

    pub fn optional_text(&mut self) -> Result<Option<&'a str>, CborError> {
        if self.rest.first() == Some(&NULL) {
            self.rest = &self.rest[1..];
            return Ok(None);
        }
        self.text().map(Some)
    }

    /// Ends the reading: nothing may be left.
    pub fn finish(self) -> Result<(), CborError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(CborError::Trailing)
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<u64, CborError> {
        let (major, value) = self.head()?;
        if major == wanted {
            Ok(value)
        } else {
            Err(CborError::WrongType)
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let length = usize::try_from(length).map_err(|_| CborError::Truncated)?;
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(CborError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<(u8, u64), CborError> {
        let first = self.take(1)?[0];
        let (major, short) = (first >> 5, first & 0x1f);
        let (width, least) = match short {
            0..=23 => return Ok((major, u64::from(short))),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            // 28..=30 are reserved, 31 is an indefinite length: deterministic CBOR has none.
            _ => return Err(CborError::NotShortest),
        };
        let value = self
            .take(width)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if value < least {
            return Err(CborError::NotShortest);
        }
        Ok((major, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: i64, expect: &str) {
        let mut writer = Writer::new();
        writer.int(value);
        let bytes = writer.finish();
        assert_eq!(hex::encode(&bytes), expect);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.int(), Ok(value));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn integers_are_written_as_in_the_appendix_of_rfc_8949() {
        check(0, "00");
        check(23, "17");
        check(24, "1818");
        check(100, "1864");
        check(1000, "1903e8");
        check(1_000_000, "1a000f4240");
        check(1_000_000_000_000, "1b000000e8d4a51000");
        check(-1, "20");
        check(-100, "3863");
        check(-1000, "3903e7");
        check(i64::MAX, "1b7fffffffffffffff");
        check(i64::MIN, "3b7fffffffffffffff");
    }

    #[test]
    fn longer_forms_of_the_same_number_are_refused() {
        for bytes in [
            "1817",
            "190018",
            "1a00000400",
            "1b0000000000000001",
            "1c",
            "1f",
        ] {
            let bytes = hex::decode(bytes).unwrap();
            assert_eq!(
                Reader::new(&bytes).uint(),
                Err(CborError::NotShortest),
                "{}",
                hex::encode(bytes)
            );
        }
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_without_allocating() {
        let bytes = hex::decode("5bffffffffffffffff").unwrap();
        assert_eq!(Reader::new(&bytes).bytes(), Err(CborError::Truncated));
        assert_eq!(
            Reader::new(&[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).int(),
            Err(CborError::OutOfRange)
        );
    }
}
