//! A provider's bytes, in any split, for every pair of dialects: no panic, and nothing grows past
//! its bound. The first bytes choose pair, streaming and where the input is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{Dialect, Relay, RelayOptions};
use serde_json::json;

fuzz_target!(|data: &[u8]| {
    let [choice, cut, upstream @ ..] = data else { return };
    let dialects = Dialect::ALL;
    let agent = dialects[usize::from(choice & 3) % dialects.len()];
    let provider = dialects[usize::from(choice >> 2 & 3) % dialects.len()];
    let streamed = choice & 16 != 0;
    let body = json!({"model": "m", "stream": streamed, "max_tokens": 10, "messages": [{"role": "user", "content": "x"}], "input": "x"});
    let Ok(request) = llm::parse(agent, &body) else { return };
    let options = RelayOptions { limit_bytes: 1 << 20, ..RelayOptions::at(0) };
    let mut relay = Relay::new(agent, provider, streamed, &request, "m", options);
    let cut = usize::from(*cut).min(upstream.len());
    let (head, tail) = upstream.split_at(cut);
    let mut held = false;
    for part in [head, tail] {
        let Ok(pieces) = relay.push(part) else { return };
        for piece in pieces {
            assert!(piece.hold || !held, "a piece left after one that is held");
            held = piece.hold;
        }
    }
    let _ = relay.finish();
    let _ = relay.outcome().marks();
});
