//! Frames of a hostile peer, in two parts: decoded or refused, never buffered past the bound.
#![no_main]

use contract::frame::Decoder;
use contract::keeper::{ToHub, ToKeeper};
use contract::shim::{FromShim, ToShim};
use libfuzzer_sys::fuzz_target;

fn all<T: serde::de::DeserializeOwned>(data: &[u8]) {
    let (head, tail) = data.split_at(data.len() / 2);
    let mut decoder = Decoder::default();
    for part in [head, tail] {
        decoder.push(part);
        while let Ok(Some(_)) = decoder.next::<T>() {}
    }
}

fuzz_target!(|data: &[u8]| {
    all::<ToHub>(data);
    all::<ToKeeper>(data);
    all::<ToShim>(data);
    all::<FromShim>(data);
});
