//! Entries: one encoding, bounded, and nothing else is read.

use ledger::{Entry, EntryError, MAX_DATA_BYTES, PayloadDigest, payload_digest};
use proptest::prelude::*;

pub(crate) fn some_entry() -> Entry {
    Entry {
        seq: 7,
        time_ms: 1_790_000_000_000,
        kind: "task.submitted".to_owned(),
        version: 1,
        subject: "0199-task".to_owned(),
        author: "hub".to_owned(),
        author_seq: 3,
        traceparent: None,
        data: vec![0xa0],
        payloads: vec![PayloadDigest {
            name: "input".to_owned(),
            length: 5,
            digest: payload_digest(&[9; 32], b"hello"),
        }],
    }
}

#[test]
fn the_encoding_of_version_1_stays_what_it_is() {
    assert_eq!(
        hex::encode(some_entry().encode().unwrap()),
        "8b716d61696e737461792e656e7472792e7631071b000001a0c4506c006e7461736b2e7375626d697474656401\
         69303139392d7461736b6368756203f641a0818365696e707574055820"
            .to_owned() + &hex::encode(payload_digest(&[9; 32], b"hello"))
    );
}

#[test]
fn no_other_byte_string_near_an_entry_reads_as_the_same_entry() {
    let entry = some_entry();
    let bytes = entry.encode().unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Entry::decode(&bytes) {
                assert_ne!(other, entry, "byte {at} bit {bit}");
                assert_eq!(other.encode().unwrap(), bytes);
            }
        }
        assert!(Entry::decode(&bytes[..at]).is_err());
    }
    assert!(Entry::decode(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn bounds_and_characters_are_checked() {
    fn check(change: fn(&mut Entry), expect: EntryError) {
        let mut entry = some_entry();
        change(&mut entry);
        assert_eq!(entry.encode(), Err(expect));
    }
    check(
        |e| e.kind = "k".repeat(65),
        EntryError::TooLong {
            field: "kind",
            limit: 64,
        },
    );
    check(
        |e| e.kind = "task submitted".to_owned(),
        EntryError::BadText { field: "kind" },
    );
    check(
        |e| e.subject = String::new(),
        EntryError::BadText { field: "subject" },
    );
    check(
        |e| e.subject = "\u{1b}[31mred".to_owned(),
        EntryError::BadText { field: "subject" },
    );
    check(
        |e| e.author = "a\nb".to_owned(),
        EntryError::BadText { field: "author" },
    );
    check(
        |e| e.traceparent = Some("00 01".to_owned()),
        EntryError::BadText {
            field: "traceparent",
        },
    );
    check(
        |e| e.data = vec![0; MAX_DATA_BYTES + 1],
        EntryError::TooLong {
            field: "data",
            limit: 1024 * 1024,
        },
    );
    check(
        |e| e.payloads[0].length = u64::MAX,
        EntryError::TooLong {
            field: "payload",
            limit: 64 * 1024 * 1024,
        },
    );
    check(
        |e| e.payloads.push(e.payloads[0].clone()),
        EntryError::PayloadOrder,
    );
}

#[test]
fn a_digest_depends_on_salt_and_bytes() {
    let digest = payload_digest(&[1; 32], b"hello");
    assert_ne!(digest, payload_digest(&[2; 32], b"hello"));
    assert_ne!(digest, payload_digest(&[1; 32], b"hello!"));
}

fn arbitrary_entry() -> impl Strategy<Value = Entry> {
    let names =
        proptest::collection::btree_map("[a-z:]{1,12}", (0_u64..1000, any::<[u8; 32]>()), 0..4);
    let texts = (
        "[a-z.]{1,20}",
        "\\PC{1,20}",
        "\\PC{1,20}",
        proptest::option::of("[!-~]{1,55}"),
    );
    let numbers = (any::<u64>(), any::<i64>(), any::<u16>(), any::<u64>());
    (
        numbers,
        texts,
        proptest::collection::vec(any::<u8>(), 0..300),
        names,
    )
        .prop_map(
            |(
                (seq, time_ms, version, author_seq),
                (kind, subject, author, traceparent),
                data,
                names,
            )| Entry {
                seq,
                time_ms,
                kind,
                version,
                subject,
                author,
                author_seq,
                traceparent,
                data,
                payloads: names
                    .into_iter()
                    .map(|(name, (length, digest))| PayloadDigest {
                        name,
                        length,
                        digest,
                    })
                    .collect(),
            },
        )
}

proptest! {
    #[test]
    fn decoding_an_encoding_gives_the_entry(entry in arbitrary_entry()) {
        let bytes = entry.encode().unwrap();
        prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut tagged = hex::decode("8b716d61696e737461792e656e7472792e7631").unwrap();
        tagged.extend_from_slice(&bytes);
        for bytes in [&bytes, &tagged] {
            if let Ok(entry) = Entry::decode(bytes) {
                prop_assert_eq!(&entry.encode().unwrap(), bytes);
            }
        }
    }
}
