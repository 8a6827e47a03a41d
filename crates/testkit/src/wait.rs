//! Waiting for a condition with a bound. The one place that sleeps: between two looks.

use std::time::{Duration, Instant};

/// Looks every 5 ms until `look` finds something; fails the test after `bound`, saying what for.
pub fn until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {bound:?} in vain for: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
