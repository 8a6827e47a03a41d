//! A provider's bytes, in any split, for every pair of dialects: no panic, nothing leaves behind
//! what is held, and where the bytes were cut makes no difference. The first bytes choose pair,
//! streaming and cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{Dialect, Relay, RelayOptions, Request};
use serde_json::json;

struct Setting {
    agent: Dialect,
    provider: Dialect,
    streamed: bool,
    request: Request,
}

/// What the agent gets; nothing when the answer is refused.
fn relayed(setting: &Setting, parts: [&[u8]; 2]) -> Option<(Vec<u8>, String)> {
    let options = RelayOptions {
        limit_bytes: 1 << 20,
        ..RelayOptions::at(0)
    };
    let Setting {
        agent,
        provider,
        streamed,
        request,
    } = setting;
    let mut relay = Relay::new(*agent, *provider, *streamed, request, "m", options);
    let mut sent = Vec::new();
    let mut held = false;
    let mut take = |pieces: Vec<llm::Piece>| {
        for piece in pieces {
            assert!(piece.hold || !held, "a piece left after one that is held");
            held = piece.hold;
            sent.extend_from_slice(&piece.bytes);
        }
    };
    for part in parts {
        take(relay.push(part).ok()?);
    }
    take(relay.finish().ok()?);
    let outcome = relay.outcome();
    let _ = outcome.marks();
    Some((sent, format!("{outcome:?}")))
}

fuzz_target!(|data: &[u8]| {
    let [choice, cut, upstream @ ..] = data else {
        return;
    };
    let dialects = Dialect::ALL;
    let agent = dialects[usize::from(choice & 3) % dialects.len()];
    let provider = dialects[usize::from(choice >> 2 & 3) % dialects.len()];
    let streamed = choice & 16 != 0;
    let body = json!({"model": "m", "stream": streamed, "max_tokens": 10, "messages": [{"role": "user", "content": "x"}], "input": "x"});
    let Ok(request) = llm::parse(agent, &body) else {
        return;
    };
    let setting = Setting {
        agent,
        provider,
        streamed,
        request,
    };
    let cut = usize::from(*cut) * upstream.len() / 256;
    let (head, tail) = upstream.split_at(cut);
    let whole = relayed(&setting, [upstream, &[]]);
    assert_eq!(
        relayed(&setting, [head, tail]),
        whole,
        "the cut made a difference"
    );
});
