//! Tells when JSON text that comes in pieces is a complete object: the moment from which an agent could act on a
//! tool call. Only brackets and strings are followed; whether the text is valid is somebody else's question.

#[derive(Debug, Clone, Default)]
pub(crate) struct Balance {
    depth: u32,
    in_string: bool,
    escaped: bool,
    complete: bool,
}

impl Balance {
    pub(crate) fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            self.step(byte);
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.complete |= self.depth == 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_complete_at_its_last_bracket_only() {
        let text = r#" {"a": "}\"}", "b": [1, {"c": 2}]}"#;
        let mut balance = Balance::default();
        for (at, char) in text.char_indices() {
            assert!(!balance.is_complete(), "before {at}");
            balance.push(&char.to_string());
        }
        assert!(balance.is_complete());
    }
}
