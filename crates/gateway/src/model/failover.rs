//! A model call goes through the models that may serve it: the one asked for, then its provider's
//! `fallback`, in order. The next one is tried on 429, 5xx, a failed connection, a time-out, an
//! unreadable answer or a refused credential, and never once a byte has reached the agent.

use super::feed::Sink;
use super::outcome::{Answered, Failed};
use super::upstream::Upstreams;
use super::{Candidate, ModelCall, retry};

/// Who served, and with what.
#[derive(Debug)]
pub struct Served {
    pub candidate: Candidate,
    pub answered: Answered,
}

/// Makes the call.
pub async fn call<S: Sink>(
    upstreams: &Upstreams,
    call: &ModelCall,
    sink: &mut S,
) -> Result<Served, Failed> {
    let mut worst: Option<Failed> = None;
    for (index, candidate) in call.candidates.iter().enumerate() {
        let is_last = index + 1 == call.candidates.len();
        let failed = match retry::call(upstreams, call, candidate, is_last, sink).await {
            Ok(answered) => {
                return Ok(Served {
                    candidate: candidate.clone(),
                    answered,
                });
            }
            Err(failed) => failed,
        };
        let stands = sink.has_left() || !failed.falls_over();
        tracing::info!(model = %candidate.model, status = failed.status, reason = failed.code(), is_last, "a model call failed");
        if stands {
            return Err(failed);
        }
        worst = Some(weigh(worst, failed));
    }
    Err(worst.unwrap_or_else(Failed::nobody))
}

/// The failure to report: only if every credential was refused is it a matter of credentials, and
/// a candidate that can't carry the request says less than one that failed at it.
fn weigh(before: Option<Failed>, now: Failed) -> Failed {
    match before {
        Some(before) if !before.is_credential() && (now.is_credential() || now.is_carry()) => {
            before
        }
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Reason;
    use llm::ErrorKind;

    #[test]
    fn a_refused_credential_is_reported_only_where_all_were_refused() {
        let refused = || Failed::of(Reason::Provider(ErrorKind::Auth), 401, "no");
        let broken = || Failed::of(Reason::Connection, 502, "gone");
        let carried = || Failed::of(Reason::Carry, 400, "cannot");
        let reported = |failures: [Failed; 2]| {
            let [first, second] = failures;
            weigh(Some(first), second).status
        };
        assert_eq!(reported([refused(), refused()]), 401);
        assert_eq!(reported([refused(), broken()]), 502);
        assert_eq!(reported([broken(), refused()]), 502);
        assert_eq!(reported([broken(), carried()]), 502);
    }
}
