//! Heads and notes: the vector from the reference implementation's documentation, and strict reading.

use ledger::{Head, KeyError, Note, PublicKey, SignedHead, SigningKey, incarnation_of, origin};
use proptest::prelude::*;

#[test]
fn the_reference_implementations_example_note_verifies() {
    let key =
        PublicKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
            .unwrap();
    let text = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n\n\
                \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let note = Note::parse(text).unwrap();
    assert!(note.is_signed_by(&key));
    assert_eq!(note.to_text(), text);
    assert_eq!(PublicKey::parse(&key.to_text()).unwrap(), key);
    let mut forged = note;
    forged.text = forged.text.replace("your", "my");
    assert!(!forged.is_signed_by(&key));
}

pub(crate) fn some_key() -> SigningKey {
    SigningKey::from_seed(&[5; 32]).unwrap()
}

fn some_head() -> SignedHead {
    let origin = origin("default", &[0xab; 16]).unwrap();
    SignedHead::sign(
        Head {
            origin,
            size: 42,
            root: [7; 32],
        },
        &some_key(),
    )
    .unwrap()
}

#[test]
fn a_head_is_a_checkpoint_note_under_its_origin() {
    let head = some_head();
    let text = head.to_text();
    assert!(text.starts_with(
        "mainstay.dev/log/default/abababababababababababababababab\n42\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n\n\u{2014} mainstay.dev/log/default/abab"
    ));
    assert_eq!(SignedHead::parse(&text).unwrap(), head);
    assert_eq!(
        incarnation_of(&head.head.origin),
        Some("abababababababababababababababab")
    );
}

#[test]
fn a_head_is_signed_by_its_own_logs_key_only() {
    let head = some_head();
    let key = some_key().public_key(&head.head.origin).unwrap();
    assert!(head.is_signed_by(&key));
    assert!(!head.is_signed_by(&some_key().public_key("mainstay.dev/log/other/ab").unwrap()));
    assert!(
        !head.is_signed_by(
            &SigningKey::from_seed(&[6; 32])
                .unwrap()
                .public_key(&head.head.origin)
                .unwrap()
        )
    );
}

#[test]
fn no_flipped_bit_of_a_head_goes_unnoticed() {
    let head = some_head();
    let key = some_key().public_key(&head.head.origin).unwrap();
    let text = head.to_text();
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            let signed = SignedHead::parse(&text).is_ok_and(|head| head.is_signed_by(&key));
            assert!(!signed, "byte {at} bit {bit}: {text}");
        }
    }
}

#[test]
fn a_cosignature_beside_the_logs_own_is_kept_and_passed_over() {
    let head = some_head();
    let cosigned = head.to_text() + "\u{2014} witness.example AAAAAAAAAAA=\n";
    let parsed = SignedHead::parse(&cosigned).unwrap();
    assert!(parsed.is_signed_by(&some_key().public_key(&head.head.origin).unwrap()));
    assert_eq!(parsed.to_text(), cosigned);
}

#[test]
fn malformed_heads_and_keys_are_refused() {
    let text = some_head().to_text();
    for bad in [
        text.replace("\n42\n", "\n042\n"),
        text.replace("\n42\n", "\n+42\n"),
        text.replace("\n42\n", "\n42\nextension\n"),
        text.trim_end().to_owned(),
        format!("{text}\n"),
        format!("\n{text}"),
        String::new(),
        "x".repeat(70_000),
    ] {
        assert!(SignedHead::parse(&bad).is_err(), "{bad:.200}");
    }
    let key = some_key().public_key("a").unwrap().to_text();
    assert_eq!(
        PublicKey::parse(&key.replacen('a', "b", 1)),
        Err(KeyError::WrongId)
    );
    assert_eq!(PublicKey::parse("a+b"), Err(KeyError::Form));
    assert!(origin("a b", &[0; 16]).is_err());
    assert!(origin("a/b", &[0; 16]).is_err());
    assert!(origin("", &[0; 16]).is_err());
}

proptest! {
    #[test]
    fn whatever_parses_is_written_back_as_it_was(text in "[a-z\n\u{2014} 0-9A-Z+/=]{0,200}") {
        if let Ok(note) = Note::parse(&text) {
            prop_assert_eq!(note.to_text(), text);
        }
    }
}
