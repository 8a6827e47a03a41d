//! How an object does, in one condition: `Ready`, with a reason for programs and a sentence for
//! people that says what to do.

use crate::error::Error;
use crate::world::{Pod, SOURCE_UNAVAILABLE, Trouble, Workload};

/// The condition to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) is_ready: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Whether somebody has to know: it becomes an Event.
    pub(crate) is_problem: bool,
}

/// What an Event may say, in bytes: a longer one is refused. A condition may say more.
const LONGEST: usize = 1024;

impl Verdict {
    pub(crate) fn ready(reason: &str, message: impl Into<String>) -> Self {
        Self::new(true, reason, message.into(), false)
    }

    /// On its way; nobody has to do anything.
    pub(crate) fn waiting(reason: &str, message: impl Into<String>) -> Self {
        Self::new(false, reason, message.into(), false)
    }

    /// Somebody has to do something.
    pub(crate) fn problem(reason: &str, message: impl Into<String>) -> Self {
        Self::new(false, reason, message.into(), true)
    }

    fn new(is_ready: bool, reason: &str, message: String, is_problem: bool) -> Self {
        Self {
            is_ready,
            reason: reason.to_owned(),
            message: cut(message),
            is_problem,
        }
    }

    /// The same, said of a part of the object.
    pub(crate) fn of_part(self, part: &str) -> Self {
        Self {
            message: cut(format!("{part}: {}", self.message)),
            ..self
        }
    }

    pub(crate) fn of_error(error: &Error) -> Self {
        let mut message = error.to_string();
        if let Some(hint) = error.hint() {
            message = format!("{message}: {hint}");
        }
        Self::problem(error.reason(), message)
    }

    /// What a manifest's problems say.
    pub(crate) fn invalid(problems: &[api::Problem], is_kept: bool) -> Self {
        let mut sentences: Vec<String> = problems.iter().map(sentence).collect();
        if is_kept {
            sentences.push("what was right before it goes on".to_owned());
        }
        Self::problem("Invalid", sentences.join("; "))
    }

    /// From a workload and its pods.
    pub(crate) fn of_workload(workload: Option<&Workload>, pods: &[Pod], image: &str) -> Self {
        let Some(workload) = workload else {
            return Self::waiting("Starting", "its pods are being made");
        };
        if let Some(failure) = &workload.failure {
            // What stands before it is a pod's name, which is another at each try.
            return match failure.find("exceeded quota").map(|at| &failure[at..]) {
                Some(said) => Self::problem(
                    "QuotaExceeded",
                    format!(
                        "{said}: raise the Workspace's spec.quota, or ask for less in spec.resources"
                    ),
                ),
                None => Self::problem("PodsRefused", failure.clone()),
            };
        }
        let is_current = workload.is_observed && workload.updated >= workload.wanted;
        if is_current && workload.ready >= workload.wanted {
            return match workload.wanted {
                0 => Self::ready("NoReplicas", "no instances are wanted"),
                1 => Self::ready("Running", "its instance is ready"),
                many => Self::ready("Running", format!("all {many} instances are ready")),
            };
        }
        if let Some(trouble) = pods.iter().find_map(|pod| pod.trouble.as_ref()) {
            return Self::of_trouble(trouble, image);
        }
        let (ready, wanted) = (workload.ready, workload.wanted);
        Self::waiting(
            "Starting",
            format!("{ready} of {wanted} instances are ready"),
        )
    }

    /// The words are ours where Kubernetes' change every few seconds: a condition must not.
    fn of_trouble(trouble: &Trouble, image: &str) -> Self {
        let message = trouble.message.trim();
        match trouble.reason.as_str() {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                Self::problem(
                    "ImageUnavailable",
                    format!(
                        "image {image} can't be pulled: see the pod's Events, and check its name, its registry's rights and spec.image"
                    ),
                )
            }
            SOURCE_UNAVAILABLE => Self::problem(
                SOURCE_UNAVAILABLE,
                format!(
                    "its source can't be brought into its pod: {message}; `mainstay apply` sends it once more"
                ),
            ),
            "CrashLoopBackOff" => Self::problem(
                "Crashing",
                format!("its process ends again and again: {message}; see `mainstay logs`"),
            ),
            "Unschedulable" if message.contains("PersistentVolumeClaim") => Self::problem(
                "VolumeUnavailable",
                format!("{message}: is there a default StorageClass that makes volumes?"),
            ),
            "Unschedulable" => Self::problem(
                "Unschedulable",
                format!("{message}: check spec.resources and spec.placement against the nodes"),
            ),
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Self::problem("ContainerRefused", message)
            }
            "" => Self::problem("PodFailed", message),
            reason => Self::problem(reason, message),
        }
    }
}

/// With a sign at its end if it was longer.
fn cut(mut message: String) -> String {
    const MORE: char = '…';
    if message.len() > LONGEST {
        let end = message.floor_char_boundary(LONGEST - MORE.len_utf8());
        message.truncate(end);
        message.push(MORE);
    }
    message
}

/// One problem of a manifest on one line, without its place: who applied it has other lines.
pub(crate) fn sentence(problem: &api::Problem) -> String {
    match &problem.hint {
        Some(hint) => format!("{} ({hint})", problem.message),
        None => problem.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::PodOwner;

    fn workload(wanted: i64, ready: i64) -> Workload {
        Workload {
            wanted,
            replicas: wanted,
            ready,
            updated: wanted,
            is_observed: true,
            claim_bytes: None,
            failure: None,
        }
    }

    fn pod(reason: &str, message: &str) -> Pod {
        Pod {
            owner: PodOwner::Agent("a".to_owned()),
            is_ready: false,
            trouble: Some(Trouble {
                reason: reason.to_owned(),
                message: message.to_owned(),
            }),
        }
    }

    fn check(workload: &Workload, pods: &[Pod], reason: &str, is_ready: bool) {
        let verdict = Verdict::of_workload(Some(workload), pods, "x:1");
        assert_eq!(
            (verdict.reason.as_str(), verdict.is_ready),
            (reason, is_ready),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_workload_is_ready_when_its_present_pods_are() {
        check(&workload(2, 2), &[], "Running", true);
        check(&workload(0, 0), &[], "NoReplicas", true);
        check(&workload(2, 1), &[], "Starting", false);
        let stale = Workload {
            is_observed: false,
            ..workload(1, 1)
        };
        check(&stale, &[], "Starting", false);
    }

    #[test]
    fn what_ails_its_pods_is_said_with_what_to_do() {
        check(
            &workload(1, 0),
            &[pod("ImagePullBackOff", "back-off 40s")],
            "ImageUnavailable",
            false,
        );
        check(
            &workload(1, 0),
            &[pod("CrashLoopBackOff", "exit code 1")],
            "Crashing",
            false,
        );
        let claim = pod(
            "Unschedulable",
            "pod has unbound immediate PersistentVolumeClaims",
        );
        check(&workload(1, 0), &[claim], "VolumeUnavailable", false);
        let full = Workload {
            failure: Some("pods \"a\" is forbidden: exceeded quota: mainstay".to_owned()),
            ..workload(1, 0)
        };
        check(&full, &[], "QuotaExceeded", false);
    }

    #[test]
    fn a_sentence_ends_where_an_event_of_it_would_be_refused() {
        let verdict = Verdict::problem("Invalid", "ö".repeat(4000));
        assert!(verdict.message.ends_with("ö…"), "{verdict:?}");
        let of_part = verdict.clone().of_part("its hub");
        assert!(of_part.message.starts_with("its hub: ö"), "{of_part:?}");
        for verdict in [verdict, of_part] {
            assert!(
                (1000..=1024).contains(&verdict.message.len()),
                "{verdict:?}"
            );
        }
    }
}
