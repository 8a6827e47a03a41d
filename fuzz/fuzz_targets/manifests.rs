//! A manifest of any bytes: problems or a fleet, never a panic, never unbounded.
#![no_main]

use api::{Document, Facts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let model = |_: &str, _: &str| None;
    let read = |_: &std::path::Path| Err("no files here".to_owned());
    match api::resolve(
        &[Document::named("fuzz.yaml", text)],
        &Facts::new(&model, &read),
    ) {
        Ok(resolved) => drop(resolved.fleet.hash()),
        Err(problems) => drop(problems.to_string()),
    }
});
