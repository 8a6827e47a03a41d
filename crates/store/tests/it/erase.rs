//! Erasing payloads: gone from every file, recorded, and every proof stands.

use std::fs;

use store::{Batch, Erasure, Log, StoreError, VerifyOptions, blob_name};

use crate::fixture::{MAC, entry, fill, on_both};

const SECRET: &[u8] = b"the secret that must be gone";

fn with_secret(log: &mut Log) -> u64 {
    let mut secret = entry(1);
    secret.subject = "task-9".to_owned();
    secret.payloads = vec![
        ("text".to_owned(), SECRET.repeat(300)),
        (blob_name(&MAC), SECRET.to_vec()),
    ];
    log.append(&Batch {
        entries: vec![secret],
        ..Batch::default()
    })
    .unwrap()
    .first_seq
}

fn holds_secret(dir: &std::path::Path) -> bool {
    ["log.db", "log.db-wal"].iter().any(|name| {
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|window| window == SECRET)
    })
}

#[test]
fn an_erased_payload_is_gone_from_the_files_and_the_log_still_verifies() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 2);
        let seq = with_secret(&mut log);
        assert!(home.is_on_server() || holds_secret(home.dir()));
        let erasures = ["text".to_owned(), blob_name(&MAC)]
            .map(|name| Erasure { seq, name })
            .to_vec();
        log.append(&Batch {
            erasures: erasures.clone(),
            now_ms: 5,
            ..Batch::default()
        })
        .unwrap();
        assert!(home.is_on_server() || !holds_secret(home.dir()));
        assert_eq!(log.read().payload(seq, "text").unwrap(), None);
        assert_eq!(log.read().payload(seq, &blob_name(&MAC)).unwrap(), None);
        let report = home.verify(&VerifyOptions::default()).unwrap();
        assert_eq!(report.erased, 2);

        // Not twice, and the same message can be stored again.
        let again = log.append(&Batch {
            erasures,
            now_ms: 6,
            ..Batch::default()
        });
        assert!(matches!(again, Err(StoreError::Batch { .. })));
        let seq = with_secret(&mut log);
        assert_eq!(
            log.read()
                .payload(seq, &blob_name(&MAC))
                .unwrap()
                .as_deref(),
            Some(SECRET)
        );
        assert_eq!(log.read().entry(seq).unwrap().unwrap().subject, "task-9");
        home.verify(&VerifyOptions::default()).unwrap();
    });
}

#[test]
fn a_payload_taken_away_without_a_record_is_missed() {
    on_both(|home| {
        let mut log = home.open();
        fill(&mut log, 3);
        log.close().unwrap();
        home.sql("DELETE FROM payload WHERE id / 16384 = 2 AND name = 'text'");
        let error = home.examine().unwrap_err();
        assert!(
            error.contains("payload text of entry 2 is missing"),
            "{error}"
        );
    });
}
