//! An agent's request body in every dialect: parsed, rendered for every provider, canonicalised,
//! split and joined, masked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{Dialect, TimeWindow};
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    for agent in Dialect::ALL {
        let (envelope, messages) = llm::split(agent, &body);
        assert_eq!(
            llm::join(&envelope, messages),
            body,
            "split and join are inverse"
        );
        let canonical = llm::canonical(agent, &body);
        let window = TimeWindow {
            from_unix_ms: 0,
            to_unix_ms: 2_000_000_000_000,
        };
        let _ = llm::mask_times(&canonical, agent, window, &|_| false, true);
        let _ = llm::request_marks(agent, &body);
        let Ok(request) = llm::parse(agent, &body) else {
            continue;
        };
        for provider in Dialect::ALL {
            let _ = llm::render_request(&request, provider, "m");
        }
    }
});
