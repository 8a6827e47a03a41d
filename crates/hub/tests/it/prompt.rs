//! Versions of prompts outlive the files they came from, and never change.

use std::collections::BTreeMap;

use api::fleet::{Fleet, PromptPack, PromptRef};

use crate::home::{Home, fleet};

fn pack(version: &str, text: &str) -> PromptPack {
    PromptPack {
        version: version.into(),
        prompts: BTreeMap::from([("greet".to_owned(), text.to_owned())]),
    }
}

/// A fleet whose agent uses `desk`'s prompt in this version, with or without the pack itself.
fn with_prompt(pinned: &str, packs: Option<PromptPack>) -> Fleet {
    let mut fleet = fleet(|agent| {
        agent.prompt = Some(PromptRef {
            pack: "desk".into(),
            name: "greet".into(),
            version: Some(pinned.into()),
        });
    });
    let packs = packs.map(|pack| ("desk".to_owned(), pack));
    fleet.prompt_packs.extend(packs);
    fleet
}

fn instructions(home: &Home) -> String {
    home.hub.fleet().agents["helper"].instructions.clone()
}

#[tokio::test]
async fn a_version_of_a_prompt_is_immutable_and_outlives_its_file() {
    let state = tempfile::tempdir().unwrap();
    let first = with_prompt("1", Some(pack("1", "Be kind.")));
    let mut home = Home::start(state.path(), &first, vec![]).await;
    assert_eq!(instructions(&home), "Be kind.");

    let changed = with_prompt("1", Some(pack("1", "Be rude.")));
    let problems = home.propose(2, &changed).await.unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("desk") && problems[0].contains("version 1"),
        "{problems:?}"
    );
    assert_eq!(instructions(&home), "Be kind.", "what runs is kept");

    let newer = with_prompt("1", Some(pack("2", "Be brief.")));
    home.propose(3, &newer).await.unwrap();
    assert_eq!(instructions(&home), "Be kind.", "the pin is filled in");

    let unknown = with_prompt("9", None);
    let problems = home.propose(4, &unknown).await.unwrap_err();
    assert!(problems[0].contains("version 9"), "{problems:?}");
    home.end().await;

    // Another hub, and no file of the pack any more: both versions are still known.
    let mut home = Home::start(state.path(), &with_prompt("1", None), vec![]).await;
    assert_eq!(instructions(&home), "Be kind.");
    home.propose(2, &with_prompt("2", None)).await.unwrap();
    assert_eq!(instructions(&home), "Be brief.");
    home.end().await;
}
