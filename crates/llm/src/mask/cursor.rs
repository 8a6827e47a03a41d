//! A place in a text, moved forward by small readers. Copies are free, so trying and giving up needs no undo.

#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor where a word or number may begin: not inside another one, nor after a decimal point.
    pub(super) fn at_word(text: &'a str, at: usize) -> Option<Cursor<'a>> {
        let bytes = text.as_bytes();
        if !bytes[at].is_ascii_alphanumeric() {
            return None;
        }
        let before = text[..at].chars().next_back();
        let is_inside = before.is_some_and(|char| char.is_alphanumeric() || char == '_');
        let after_digit = at
            .checked_sub(2)
            .is_some_and(|at| bytes[at].is_ascii_digit());
        let is_fraction =
            bytes[at].is_ascii_digit() && matches!(before, Some('.' | ':')) && after_digit;
        (!is_inside && !is_fraction).then_some(Cursor { text, at })
    }

    fn rest(self) -> &'a str {
        &self.text[self.at..]
    }

    fn bytes(self) -> &'a [u8] {
        self.rest().as_bytes()
    }

    pub(super) fn peek(self) -> Option<u8> {
        self.bytes().first().copied()
    }

    fn skip(self, count: usize) -> Cursor<'a> {
        Cursor {
            at: self.at + count,
            ..self
        }
    }

    /// One of the given ASCII bytes.
    pub(super) fn one_of(self, wanted: &[u8]) -> Option<Cursor<'a>> {
        self.peek()
            .filter(|byte| wanted.contains(byte))
            .map(|_| self.skip(1))
    }

    /// The bytes of `wanted`, in any case.
    pub(super) fn word(self, wanted: &str) -> Option<Cursor<'a>> {
        let found = self.bytes().get(..wanted.len())?;
        found
            .eq_ignore_ascii_case(wanted.as_bytes())
            .then(|| self.skip(wanted.len()))
    }

    pub(super) fn spaces(self) -> Cursor<'a> {
        let count = self
            .bytes()
            .iter()
            .take_while(|byte| **byte == b' ')
            .count();
        // A narrow no-break space stands before AM and PM in what JavaScript prints.
        let cursor = self.skip(count);
        cursor
            .rest()
            .strip_prefix('\u{202f}')
            .map_or(cursor, |_| cursor.skip('\u{202f}'.len_utf8()))
    }

    /// ASCII letters, at least one.
    pub(super) fn letters(self) -> Option<(&'a str, Cursor<'a>)> {
        let count = self
            .bytes()
            .iter()
            .take_while(|byte| byte.is_ascii_alphabetic())
            .count();
        (count > 0).then(|| (&self.rest()[..count], self.skip(count)))
    }

    /// How many digits stand here.
    pub(super) fn digit_count(self) -> usize {
        self.bytes()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    }

    /// Exactly so many digits, whatever follows.
    pub(super) fn digits(self, count: usize) -> Option<(i64, Cursor<'a>)> {
        if count == 0 || self.digit_count() < count {
            return None;
        }
        Some((self.rest()[..count].parse().ok()?, self.skip(count)))
    }

    /// A whole number of `least` to `most` digits.
    pub(super) fn number(self, least: usize, most: usize) -> Option<(i64, Cursor<'a>)> {
        let count = self.digit_count();
        if (least..=most).contains(&count) {
            self.digits(count)
        } else {
            None
        }
    }

    /// Nothing that would make what was read part of something longer follows.
    pub(super) fn is_end(self) -> bool {
        match self.rest().chars().next() {
            None => true,
            Some(char) if char.is_alphanumeric() || char == '_' => false,
            Some(char @ ('-' | ':' | '/' | '.')) => !self
                .bytes()
                .get(char.len_utf8())
                .is_some_and(u8::is_ascii_digit),
            Some(_) => true,
        }
    }

    /// The end of a UUID that stands here.
    pub(super) fn uuid(self) -> Option<usize> {
        let bytes = self.bytes().get(..36)?;
        let shaped = bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        let end = self.skip(36);
        (shaped && end.is_end()).then_some(end.at)
    }
}
