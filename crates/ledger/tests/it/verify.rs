//! The walk: an honest log passes, and each kind of lie is named with its place.

use ledger::{
    Edge, Entry, Head, Mismatch, PayloadDigest, PublicKey, SaltedPayload, SignedHead, SigningKey,
    Verifier, leaf_hash, origin, payload_digest,
};

use crate::head::some_key;

const SALT: [u8; 32] = [3; 32];

fn log_origin() -> String {
    origin("default", &[1; 16]).unwrap()
}

fn log_key() -> PublicKey {
    some_key().public_key(&log_origin()).unwrap()
}

fn entry(seq: u64) -> Entry {
    Entry {
        seq,
        time_ms: 0,
        kind: "note.made".to_owned(),
        version: 1,
        subject: "s".to_owned(),
        author: if seq.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        author_seq: seq / 2,
        traceparent: None,
        data: Vec::new(),
        payloads: vec![PayloadDigest {
            name: "text".to_owned(),
            length: 2,
            digest: payload_digest(&SALT, b"hi"),
        }],
    }
}

fn payload(_: &str) -> Option<SaltedPayload> {
    Some(SaltedPayload {
        salt: SALT,
        bytes: b"hi".to_vec(),
    })
}

fn head_of(edge: &Edge, key: &SigningKey) -> SignedHead {
    SignedHead::sign(
        Head {
            origin: log_origin(),
            size: edge.size(),
            root: edge.root(),
        },
        key,
    )
    .unwrap()
}

/// A walk over `count` honest entries.
fn walked(count: u64) -> (Verifier, Edge) {
    let (mut verifier, mut edge) = (Verifier::new(log_key()), Edge::default());
    for seq in 0..count {
        let bytes = entry(seq).encode().unwrap();
        edge.push(leaf_hash(&bytes));
        assert_eq!(verifier.entry(&bytes, payload), Ok(entry(seq)));
    }
    (verifier, edge)
}

#[test]
fn an_honest_log_passes() {
    let (mut verifier, edge) = walked(5);
    verifier.head(0, &head_of(&edge, &some_key())).unwrap();
    let summary = verifier.finish().unwrap();
    assert_eq!(
        (summary.edge, summary.payloads, summary.erased),
        (edge, 5, 0)
    );
    assert_eq!(summary.authors["even"], 3);
}

fn check(change: fn(&mut Entry), expect: fn(&Mismatch) -> bool) {
    let (mut verifier, _) = walked(4);
    let mut entry = entry(4);
    change(&mut entry);
    let found = verifier
        .entry(&entry.encode().unwrap(), payload)
        .unwrap_err();
    assert!(expect(&found), "{found}");
}

#[test]
fn an_entry_in_the_wrong_place_or_of_a_wrong_count_or_with_another_payload_is_named() {
    check(
        |e| e.seq = 5,
        |m| *m == Mismatch::EntryOutOfPlace { seq: 4, found: 5 },
    );
    check(
        |e| e.author_seq = 3,
        |m| {
            matches!(
                m,
                Mismatch::AuthorCounter {
                    seq: 4,
                    expected: 2,
                    found: 3,
                    ..
                }
            )
        },
    );
    check(
        |e| e.author = "new".to_owned(),
        |m| {
            matches!(
                m,
                Mismatch::AuthorCounter {
                    expected: 0,
                    found: 2,
                    ..
                }
            )
        },
    );
    check(
        |e| e.payloads[0].digest[0] ^= 1,
        |m| matches!(m, Mismatch::PayloadDiffers { seq: 4, .. }),
    );
    check(
        |e| e.payloads[0].length = 3,
        |m| matches!(m, Mismatch::PayloadDiffers { seq: 4, .. }),
    );
    let (mut verifier, _) = walked(1);
    assert!(matches!(
        verifier.entry(b"x", payload),
        Err(Mismatch::EntryUnreadable { seq: 1, .. })
    ));
}

#[test]
fn a_head_of_another_log_size_root_or_key_is_named() {
    let (mut verifier, edge) = walked(3);
    let mut other = edge.clone();
    other.push([0; 32]);
    assert_eq!(
        verifier.head(1, &head_of(&other, &some_key())),
        Err(Mismatch::HeadOutOfPlace {
            number: 1,
            size: 4,
            at: 3
        })
    );
    let mut forged = head_of(&edge, &some_key()).head;
    forged.root[0] ^= 1;
    let forged = SignedHead::sign(forged, &some_key()).unwrap();
    assert_eq!(
        verifier.head(1, &forged),
        Err(Mismatch::HeadRoot {
            number: 1,
            size: 3,
            good_size: 0
        })
    );
    let stranger = SigningKey::from_seed(&[8; 32]).unwrap();
    assert_eq!(
        verifier.head(1, &head_of(&edge, &stranger)),
        Err(Mismatch::HeadSignature { number: 1, size: 3 })
    );
    let mut elsewhere = head_of(&edge, &some_key());
    elsewhere.head.origin.push('0');
    assert!(matches!(
        verifier.head(1, &elsewhere),
        Err(Mismatch::HeadOrigin { number: 1, .. })
    ));
}

#[test]
fn a_missing_payload_must_have_been_erased_and_an_erased_one_must_be_gone() {
    let mut verifier = Verifier::new(log_key());
    verifier
        .entry(&entry(0).encode().unwrap(), |_| None)
        .unwrap();
    verifier
        .entry(&entry(1).encode().unwrap(), payload)
        .unwrap();
    assert!(matches!(
        verifier.erasure(1, 1, "text"),
        Err(Mismatch::PayloadNotErased { seq: 1, .. })
    ));
    verifier.erasure(1, 0, "text").unwrap();
    assert_eq!(verifier.finish().unwrap().erased, 1);

    let mut verifier = Verifier::new(log_key());
    verifier
        .entry(&entry(0).encode().unwrap(), |_| None)
        .unwrap();
    assert_eq!(
        verifier.finish(),
        Err(Mismatch::PayloadMissing {
            seq: 0,
            name: "text".to_owned()
        })
    );
}
