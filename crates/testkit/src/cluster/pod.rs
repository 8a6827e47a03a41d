//! A pod as tests look at it, and its processes: those of a testbed's nodes are this machine's, so a
//! test finds them by the pod's cgroup and can kill one as the kernel would.

use std::fs;

use serde_json::Value;

use super::condition;
use crate::processes;

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub node: String,
    pub address: String,
    pub ready: bool,
    /// Of all its containers.
    pub restarts: u64,
}

impl Pod {
    /// Reads one; nothing if it's ending or has ended.
    #[must_use]
    pub fn read(pod: &Value) -> Option<Self> {
        let is_over = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        if is_over || !pod["metadata"]["deletionTimestamp"].is_null() {
            return None;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let containers = pod["status"]["containerStatuses"].as_array().cloned();
        let restarts = containers.unwrap_or_default().into_iter();
        Some(Self {
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            address: text(&pod["status"]["podIP"]),
            ready: condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True"),
            restarts: restarts
                .filter_map(|one| one["restartCount"].as_u64())
                .sum(),
        })
    }

    /// The ids, on this machine, of its processes that run that program.
    #[must_use]
    pub fn processes(&self, program: &str) -> Vec<i32> {
        let is_ours = |pid: i32| {
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let running = fs::read_link(format!("/proc/{pid}/exe"));
            cgroup.contains(&self.uid) && running.is_ok_and(|path| path.ends_with(program))
        };
        processes::all().filter(|pid| is_ours(*pid)).collect()
    }

    /// Kills all of these; returns how many there were.
    pub fn kill(&self, program: &str) -> usize {
        let running = self.processes(program).into_iter();
        running.filter(|pid| processes::kill(*pid)).count()
    }
}
