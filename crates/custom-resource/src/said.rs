//! What the API server said, in one line for a person.

use kube::Error;
use kube::runtime::watcher;

/// The message of a refusal; else the error with its causes.
pub fn answer(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        error => chain(error),
    }
}

/// The same of a watch.
pub fn watch(error: &watcher::Error) -> String {
    use watcher::Error as Watch;
    match error {
        Watch::InitialListFailed(error)
        | Watch::WatchStartFailed(error)
        | Watch::WatchFailed(error) => answer(error),
        Watch::WatchError(status) => status.message.clone(),
        error @ Watch::NoResourceVersion => chain(error),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many an error of the client prints its source itself.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
