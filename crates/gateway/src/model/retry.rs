//! A model call is retried here: the same request to the same provider, at most twice, after a
//! failed connection, 429, 5xx or an unreadable answer, with jitter, and as late as `Retry-After`
//! asks if that is soon. An answer of which a byte has left is never asked for again.

use std::time::Duration;

use super::feed::Sink;
use super::outcome::{Answered, Failed};
use super::upstream::Upstreams;
use super::{Candidate, ModelCall};

/// Retries of one model before the next one is tried.
const MAX_RETRIES: u32 = 2;
/// The wait before the first retry; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(400);
/// A provider that asks for more patience than this is left to the next model, or to the agent.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Calls one model.
pub async fn call<S: Sink>(
    upstreams: &Upstreams,
    call: &ModelCall,
    candidate: &Candidate,
    is_last: bool,
    sink: &mut S,
) -> Result<Answered, Failed> {
    let mut retries = 0;
    loop {
        let failed = match upstreams.attempt(call, candidate, retries + 1, sink).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        let jitter = rand::random::<f64>();
        match wait_before_retry(&failed, retries, is_last, jitter) {
            Some(wait) if !sink.has_left() => tokio::time::sleep(wait).await,
            _ => return Err(failed),
        }
        retries += 1;
        tracing::info!(model = %candidate.model, reason = failed.code(), retries, "a model call is retried");
    }
}

/// How long to wait before trying again; `None` to give up. `jitter` lies in 0..1.
fn wait_before_retry(
    failed: &Failed,
    retries: u32,
    is_last: bool,
    jitter: f64,
) -> Option<Duration> {
    // Where another model can serve, an answer that made no sense isn't paid for again.
    let retryable = failed.is_retryable() || (is_last && failed.is_unreadable());
    if retries >= MAX_RETRIES || !retryable {
        return None;
    }
    let back_off = FIRST_WAIT
        .saturating_mul(1 << retries.min(8))
        .mul_f64(0.5 + jitter);
    match failed.retry_after {
        Some(asked) if asked > LONGEST_WAIT => None,
        Some(asked) => Some(asked.max(back_off.mul_f64(0.5))),
        None => Some(back_off),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Reason;
    use llm::ErrorKind;

    fn wait(
        reason: Reason,
        retries: u32,
        is_last: bool,
        retry_after: Option<u64>,
    ) -> Option<Duration> {
        let failed = Failed {
            retry_after: retry_after.map(Duration::from_secs),
            ..Failed::of(reason, 500, "x")
        };
        wait_before_retry(&failed, retries, is_last, 0.5)
    }

    #[test]
    fn a_call_is_retried_twice_and_each_wait_is_longer() {
        let server = || Reason::Provider(ErrorKind::Server);
        assert_eq!(
            wait(server(), 0, true, None),
            Some(Duration::from_millis(400))
        );
        assert_eq!(
            wait(server(), 1, true, None),
            Some(Duration::from_millis(800))
        );
        assert_eq!(wait(server(), 2, true, None), None);
    }

    #[test]
    fn what_would_fail_again_is_not_retried() {
        for kind in [
            ErrorKind::Auth,
            ErrorKind::BadRequest,
            ErrorKind::Quota,
            ErrorKind::ContextLength,
        ] {
            assert_eq!(
                wait(Reason::Provider(kind), 0, true, None),
                None,
                "{kind:?}"
            );
        }
        assert_eq!(wait(Reason::TimedOut, 0, true, None), None);
    }

    #[test]
    fn an_unreadable_answer_is_retried_only_where_nobody_else_can_serve() {
        assert_eq!(wait(Reason::Unreadable, 0, false, None), None);
        assert!(wait(Reason::Unreadable, 0, true, None).is_some());
    }

    #[test]
    fn the_provider_is_given_the_time_it_asks_for_if_that_is_soon() {
        let limited = || Reason::Provider(ErrorKind::RateLimited);
        assert_eq!(
            wait(limited(), 0, true, Some(3)),
            Some(Duration::from_secs(3))
        );
        assert_eq!(wait(limited(), 0, true, Some(60)), None);
    }
}
