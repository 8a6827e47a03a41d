//! A hostile peer's bytes, in two parts: decoded or refused, and what is decoded is the same after
//! another way over the wire. The input is tried as it is and as the body of one frame, because a
//! fuzzer doesn't find lengths.
#![no_main]

use contract::attach::{FromAgent, ToAgent};
use contract::frame::{Decoder, encode};
use contract::keeper::{ToHub, ToKeeper};
use contract::shim::{FromShim, ToShim};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fn all<T: DeserializeOwned + Serialize>(data: &[u8]) {
    let (head, tail) = data.split_at(data.len() / 2);
    let mut decoder = Decoder::default();
    for part in [head, tail] {
        decoder.push(part);
        while let Ok(Some(message)) = decoder.next::<T>() {
            again(&message);
        }
    }
}

fn again<T: DeserializeOwned + Serialize>(message: &T) {
    let sent = encode(message).expect("what was read can be sent");
    let mut decoder = Decoder::default();
    decoder.push(&sent);
    let read: T = decoder
        .next()
        .expect("what was sent can be read")
        .expect("it is whole");
    assert_eq!(
        encode(&read).expect("and sent again"),
        sent,
        "one way over the wire changes it"
    );
}

fuzz_target!(|data: &[u8]| {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    let framed = [&length[..], data].concat();
    for bytes in [data, &framed] {
        all::<ToHub>(bytes);
        all::<ToKeeper>(bytes);
        all::<ToShim>(bytes);
        all::<FromShim>(bytes);
        all::<FromAgent>(bytes);
        all::<ToAgent>(bytes);
    }
});
