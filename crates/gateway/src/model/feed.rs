//! Between a provider's answer and the agent: what may leave at once, and what waits.
//!
//! A byte that has left can't be taken back, so another model can't stand in any more. Therefore
//! the first piece of an answer waits for the second: a stream that breaks off right after its
//! opening hasn't left. What is held for the journal stays here until the answer is whole.

use bytes::Bytes;
use hub::answer::TooLarge;
use hub::step::StepRun;
use llm::Piece;

/// Where an answer goes.
pub trait Sink: Send {
    /// Status and type; the first call counts.
    fn head(&mut self, status: u16, content_type: &str);
    /// Bytes, held back until the commit if `hold`.
    fn push(&mut self, bytes: Bytes, hold: bool, text_delta: Option<&str>) -> Result<(), TooLarge>;
    /// Has a byte left to an agent?
    fn has_left(&self) -> bool;
}

impl Sink for StepRun {
    fn head(&mut self, status: u16, content_type: &str) {
        Self::head(self, status, content_type);
    }

    fn push(&mut self, bytes: Bytes, hold: bool, text_delta: Option<&str>) -> Result<(), TooLarge> {
        Self::push(self, bytes, hold, text_delta)
    }

    fn has_left(&self) -> bool {
        Self::has_left(self)
    }
}

/// One attempt's answer on its way.
pub(crate) struct Feed<'a, S> {
    sink: &'a mut S,
    content_type: &'static str,
    kept: Vec<Piece>,
    started: bool,
}

impl<'a, S: Sink> Feed<'a, S> {
    pub(crate) fn new(sink: &'a mut S, content_type: &'static str) -> Self {
        Self {
            sink,
            content_type,
            kept: Vec::new(),
            started: false,
        }
    }

    /// Takes pieces as they come.
    pub(crate) fn take(&mut self, pieces: Vec<Piece>) -> Result<(), TooLarge> {
        for piece in pieces {
            let waits = piece.hold || (!self.started && self.kept.is_empty());
            if !waits {
                self.send_kept()?;
                self.send(piece)?;
            } else {
                self.kept.push(piece);
            }
        }
        Ok(())
    }

    /// The answer is whole: the rest goes where it waits for the commit.
    pub(crate) fn complete(mut self) -> Result<(), TooLarge> {
        self.sink.head(200, self.content_type);
        self.send_kept()
    }

    fn send_kept(&mut self) -> Result<(), TooLarge> {
        for piece in std::mem::take(&mut self.kept) {
            self.send(piece)?;
        }
        Ok(())
    }

    fn send(&mut self, piece: Piece) -> Result<(), TooLarge> {
        if !self.started {
            self.started = true;
            self.sink.head(200, self.content_type);
        }
        self.sink.push(
            Bytes::from(piece.bytes),
            piece.hold,
            piece.text_delta.as_deref(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what was pushed, as text and whether it was held.
    #[derive(Default)]
    struct Seen(Vec<(String, bool)>);

    impl Sink for Seen {
        fn head(&mut self, _: u16, _: &str) {}

        fn push(&mut self, bytes: Bytes, hold: bool, _: Option<&str>) -> Result<(), TooLarge> {
            self.0
                .push((String::from_utf8_lossy(&bytes).into_owned(), hold));
            Ok(())
        }

        fn has_left(&self) -> bool {
            self.0.iter().any(|(_, hold)| !hold)
        }
    }

    fn piece(text: &str, hold: bool) -> Piece {
        Piece {
            bytes: text.into(),
            hold,
            text_delta: None,
        }
    }

    #[test]
    fn the_opening_waits_for_the_second_piece_and_what_is_held_for_the_end() {
        let mut seen = Seen::default();
        let mut feed = Feed::new(&mut seen, "text/event-stream");
        feed.take(vec![piece("open ", false)]).unwrap();
        assert!(!feed.sink.has_left(), "another model may still serve");
        feed.take(vec![piece("one ", false), piece("two ", false)])
            .unwrap();
        feed.take(vec![piece("call ", true), piece("end", true)])
            .unwrap();
        assert_eq!(feed.sink.0.len(), 3);
        feed.complete().unwrap();
        let held: Vec<bool> = seen.0.iter().map(|(_, hold)| *hold).collect();
        assert_eq!(held, [false, false, false, true, true]);
        let text: String = seen.0.into_iter().map(|(text, _)| text).collect();
        assert_eq!(text, "open one two call end");
    }

    #[test]
    fn an_answer_that_is_dropped_before_its_end_leaves_nothing_held_behind() {
        let mut seen = Seen::default();
        let mut feed = Feed::new(&mut seen, "application/json");
        feed.take(vec![piece("whole body", true)]).unwrap();
        drop(feed);
        assert!(
            seen.0.is_empty(),
            "the next attempt starts with an empty answer"
        );
    }
}
