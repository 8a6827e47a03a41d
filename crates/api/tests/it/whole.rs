//! Sets that are right: what they resolve to, which defaults they get, and when two of them are the same.

use crate::{documents, resolve_documents, resolved};
use api::fleet::{
    AgentTool, Credential, Effect, KeyPlace, Mask, ModelRef, ProviderKind, Runtime,
    ServiceProtocol, ToolKind,
};
use api::{Document, Kind};
use std::collections::BTreeSet;

const SMALLEST: &str = "
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: openai}
spec: {credential: {env: OPENAI_API_KEY}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec: {models: [openai/gpt-5.1], instructions: You answer in one sentence.}
";

pub(crate) const EVERYTHING: &str = include_str!("sets/everything.yaml");

#[test]
fn the_smallest_useful_fleet_gets_every_default() {
    let fleet = resolved(SMALLEST).fleet;
    let provider = &fleet.providers["openai"];
    assert_eq!(provider.kind, ProviderKind::Openai);
    assert_eq!(provider.base_url, "https://api.openai.com/v1");
    assert_eq!(
        provider.credential,
        Some(Credential::Env {
            name: "OPENAI_API_KEY".into()
        })
    );
    assert_eq!(
        (provider.limits.concurrency, provider.limits.timeout_ms),
        (32, 600_000)
    );
    let agent = &fleet.agents["helper"];
    assert_eq!(
        agent.models,
        [ModelRef {
            provider: "openai".into(),
            model: "gpt-5.1".into()
        }]
    );
    assert_eq!(agent.model_facts["openai/gpt-5.1"].context, Some(400_000));
    assert_eq!(agent.instructions, "You answer in one sentence.");
    assert_eq!(agent.runtime, Runtime::Builtin);
    assert_eq!(
        (agent.replicas, agent.concurrency, agent.queue_max),
        (1, 1, 1000)
    );
    assert_eq!((agent.max_attempts, agent.grace_ms), (10, 30_000));
    assert_eq!(agent.mask, BTreeSet::from([Mask::Now]));
    assert_eq!(fleet.workspace, "default");
}

#[test]
fn everything_a_manifest_may_say_resolves_without_a_warning() {
    let resolved = resolved(EVERYTHING);
    assert_eq!(resolved.warnings, []);
    let fleet = resolved.fleet;
    let agent = &fleet.agents["researcher"];
    assert_eq!(agent.instructions, "…");
    assert_eq!(agent.budget.time_ms, Some(7_200_000));
    assert_eq!(
        agent.volume.as_ref().and_then(|volume| volume.size_bytes),
        Some(5 << 30)
    );
    let exposed: Vec<_> = agent
        .tools
        .iter()
        .map(|tool| tool.exposed.as_str())
        .collect();
    assert_eq!(
        exposed,
        ["", "refund", "ask-writer"],
        "one registry: bare names, and no prefix for a server's"
    );
    let refund = &fleet.tools["desk/refund"];
    assert_eq!(
        (refund.effect, refund.timeout_ms, refund.result_bytes),
        (Effect::Keyed, 30_000, 256 << 10)
    );
    assert_eq!(refund.key, Some(KeyPlace::Header("Idempotency-Key".into())));
    assert_eq!(fleet.tools["desk/tickets"].effects["search"], Effect::Pure);
    assert_eq!(fleet.tools["desk/files"].effect, Effect::Opaque);
    assert_eq!(fleet.tools["desk/ask-writer"].effect, Effect::Keyed);
    assert_eq!(fleet.providers["fake"].script.as_deref(), Some("rules: []"));
    assert_eq!(fleet.retention.payloads_seconds, Some(30 * 86_400));
}

#[test]
fn tools_of_two_registries_are_told_apart() {
    let set = "
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: desk}
spec: {tools: [{name: tickets, mcp: {url: http://x}}, {name: now, description: N., http: {url: http://x}}]}
---
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: shop}
spec: {tools: [{name: now, description: N., http: {url: http://x}}]}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: a}
spec: {runtime: {service: {command: [x]}}, tools: [desk/tickets, desk/now, shop/now]}
";
    let fleet = resolved(set).fleet;
    let tool = |tool: &str, exposed: &str| AgentTool {
        tool: tool.into(),
        exposed: exposed.into(),
    };
    let expect = [
        tool("desk/tickets", "desk__"),
        tool("desk/now", "desk__now"),
        tool("shop/now", "shop__now"),
    ];
    assert_eq!(fleet.agents["a"].tools, expect);
    let service = Runtime::Service {
        command: vec!["x".into()],
        protocol: ServiceProtocol::Attach,
        port: None,
    };
    assert_eq!(fleet.agents["a"].runtime, service);
}

#[test]
fn paths_start_at_the_manifests_directory() {
    let set = "=== fleets/a.yaml
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: script}
spec: {script: {file: ./transcript.yaml}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: a}
spec: {runtime: {exec: {command: [x]}}, source: ./code}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: b}
spec: {runtime: {exec: {command: [x]}}, source: /srv/code}
";
    let fleet = resolved(set).fleet;
    let source = |agent: &str| {
        fleet.agents[agent]
            .source
            .as_ref()
            .map(|source| source.path.clone())
    };
    assert_eq!(source("a").as_deref(), Some("fleets/code"));
    assert_eq!(source("b").as_deref(), Some("/srv/code"));
    assert!(fleet.providers["script"].script.is_some());
}

#[test]
fn plain_values_stay_the_text_they_were_where_text_is_wanted() {
    let set = "
apiVersion: mainstay.dev/v1alpha1
kind: PromptPack
metadata: {name: p}
spec: {version: 1.10, prompts: {a: no, b: 010}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: a}
spec: {runtime: {exec: {command: [sleep, 3600, null-device]}}, env: {N: 1e3, B: true}}
";
    let fleet = resolved(set).fleet;
    assert_eq!(fleet.prompt_packs["p"].version, "1.10");
    assert_eq!(fleet.prompt_packs["p"].prompts["b"], "010");
    assert_eq!(fleet.agents["a"].env["N"], "1e3");
    assert_eq!(fleet.agents["a"].env["B"], "true");
}

#[test]
fn free_values_keep_their_json_types() {
    let set = "
apiVersion: mainstay.dev/v1alpha1
kind: ToolRegistry
metadata: {name: r}
spec:
  tools:
    - name: t
      description: T.
      http: {method: POST, url: http://x, body: {n: 1, f: 1.5, b: true, s: \"1\", z: null, l: [a]}}
";
    let fleet = resolved(set).fleet;
    let body = match &fleet.tools["r/t"].kind {
        ToolKind::Http { body, .. } => body.clone(),
        _ => None,
    };
    let expect = serde_json::json!({"n": 1, "f": 1.5, "b": true, "s": "1", "z": null, "l": ["a"]});
    assert_eq!(body, Some(expect));
}

#[test]
fn anchors_work_within_a_document() {
    let set = "
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: a, labels: &labels {team: red}}
spec: {runtime: {exec: {command: [x]}}, env: *labels}
";
    assert_eq!(resolved(set).fleet.agents["a"].env["team"], "red");
}

#[test]
fn a_hash_sees_content_and_not_order() {
    let fleet = resolved(EVERYTHING).fleet;
    let mut parts: Vec<&str> = EVERYTHING.split("---\n").collect();
    parts.reverse();
    let reversed: Vec<Document> = parts
        .iter()
        .enumerate()
        .map(|(index, text)| Document::named(format!("{index}.yaml"), *text))
        .collect();
    let other = resolve_documents(&reversed)
        .expect("the same objects")
        .fleet;
    assert_eq!(fleet.hash(), other.hash());
    let swapped = EVERYTHING.replace(
        "{ref: \"{stepId}\", item: \"{item}\"}",
        "{item: \"{item}\", ref: \"{stepId}\"}",
    );
    assert_ne!(swapped, EVERYTHING);
    assert_eq!(
        fleet.hash(),
        resolved(&swapped).fleet.hash(),
        "the order of keys in a body"
    );
    let changed = resolved(&EVERYTHING.replace("replicas: 2", "replicas: 3")).fleet;
    assert_ne!(fleet.hash(), changed.hash());
    assert_eq!(fleet.hash().len(), 64);
}

#[test]
fn a_fleet_survives_its_own_json() {
    let fleet = resolved(EVERYTHING).fleet;
    let text = serde_json::to_string(&fleet).expect("json");
    let again: api::Fleet = serde_json::from_str(&text).expect("a fleet");
    assert_eq!(again, fleet);
    assert_eq!(again.hash(), fleet.hash());
}

#[test]
fn an_objects_json_is_a_manifest_again() {
    let objects = api::parse(&documents(EVERYTHING)).expect("objects");
    assert_eq!(objects.len(), 8);
    for object in objects {
        let text = serde_json::to_string(&object.to_json()).expect("json");
        let again = api::parse(&[Document::named("again.json", text)]).expect("the same object");
        assert_eq!(again[0].spec, object.spec);
        assert_eq!(again[0].metadata, object.metadata);
    }
}

#[test]
fn the_content_is_the_version_of_a_pack_without_one() {
    let set = |text: &str| {
        format!(
            "apiVersion: mainstay.dev/v1alpha1\nkind: PromptPack\nmetadata: {{name: p}}\nspec: {{prompts: {{a: {text}}}}}\n"
        )
    };
    let pack = |text: &str| resolved(&set(text)).fleet.prompt_packs["p"].clone();
    assert_eq!(pack("Hi.").version, pack("'Hi.'").version);
    assert_ne!(pack("Hi.").version, pack("Ho.").version);
}

#[test]
fn an_empty_set_is_an_empty_fleet() {
    assert_eq!(
        resolved("# nothing yet\n---\n---\n").fleet,
        api::Fleet::empty("default")
    );
    assert_eq!(
        resolve_documents(&[]).expect("a fleet").fleet,
        api::Fleet::empty("default")
    );
}

#[test]
fn the_schema_describes_exactly_the_five_kinds() {
    let schema = api::schema::schema();
    let kinds: Vec<&str> = schema["oneOf"]
        .as_array()
        .expect("kinds")
        .iter()
        .filter_map(|kind| kind["title"].as_str())
        .collect();
    assert_eq!(kinds, Kind::ALL.map(Kind::name));
    let agent = &schema["oneOf"][3]["properties"]["spec"]["properties"];
    assert_eq!(agent["replicas"]["default"], 1);
    assert_eq!(agent["replicas"]["maximum"], 200);
    assert_eq!(agent["runtime"]["additionalProperties"], false);
    assert!(
        agent["sla"].is_null(),
        "a field comes into the schema with the code that reads it"
    );
    assert!(
        !schema.to_string().contains("\"null\""),
        "leaving out is the only way to say nothing"
    );
}

#[test]
fn kinds_are_found_by_what_people_type() {
    assert_eq!(Kind::parse("agents"), Some(Kind::Agent));
    assert_eq!(Kind::parse("ToolRegistries"), Some(Kind::ToolRegistry));
    assert_eq!(Kind::parse("promptpack"), Some(Kind::PromptPack));
    assert_eq!(Kind::parse("pod"), None);
}
