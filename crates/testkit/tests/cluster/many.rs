//! Agents by the dozen, or with `MAINSTAY_TEST_AGENTS=10000` by the thousand: each becomes what runs
//! it once, in a number of writes that doesn't grow with the number of agents, and then nothing is
//! written any more. Their pods are for nodes that exist in the API only (`cluster up --fake-nodes`);
//! without such nodes they wait, which changes nothing for the operator.

use std::time::{Duration, Instant};

use testkit::cluster::{Cluster, PATIENCE, Pod, Workspace};
use testkit::{processes, until};

/// Agents of one workspace; each workspace has a hub that follows its own.
const OF_A_WORKSPACE: usize = 1_000;
/// What the operator writes for an agent at most: three objects, its status and an Event, and as
/// much again for what Kubernetes says of them.
const WRITES: f64 = 10.0;
/// How long nothing must be written to count as nothing any more.
const QUIET: Duration = Duration::from_secs(20);

#[test]
fn every_agent_is_made_once_and_then_nothing_is_written() {
    let Some(cluster) = Cluster::find("agents by the dozen") else {
        return;
    };
    let number = std::env::var("MAINSTAY_TEST_AGENTS").map_or(48, |text| text.parse().unwrap());
    let bound = Duration::from_secs(120 + number as u64 / 5);
    let of_each = number.min(OF_A_WORKSPACE);
    let workspaces: Vec<Workspace> = (0..number.div_ceil(of_each))
        .map(|_| Workspace::start(cluster, "many"))
        .collect();
    let operator = Operator::find(cluster);
    let before = operator.writes();
    let begun = Instant::now();
    for workspace in &workspaces {
        workspace.apply(&manifests(of_each));
    }
    let applied = begun.elapsed();
    let deployments = |workspace: &Workspace| {
        let selector = "--selector=mainstay.dev/agent";
        let names = workspace.kubectl(&["get", "deployments", "--output=name", selector]);
        names.lines().count()
    };
    until("every agent has its Deployment", bound, || {
        let made: usize = workspaces.iter().map(deployments).sum();
        (made == workspaces.len() * of_each).then_some(())
    });
    let converged = begun.elapsed();
    let mut quiet = (operator.writes(), Instant::now());
    until("nothing is written any more", bound + QUIET, || {
        let writes = operator.writes();
        if writes != quiet.0 {
            quiet = (writes, Instant::now());
        }
        (quiet.1.elapsed() > QUIET).then_some(())
    });
    let count = workspaces.len() * of_each;
    let each = (quiet.0 - before) as f64 / count as f64;
    println!(
        "{count} agents in {} workspaces: applied in {applied:.1?}, all made after {converged:.1?}, \
         {each:.1} writes for each, operator {} KiB (PSS)",
        workspaces.len(),
        operator.pss_kib()
    );
    assert!(each <= WRITES, "{each} writes for each agent");
}

/// Agents without anything that has to be reached.
fn manifests(number: usize) -> String {
    let agent = |n: usize| {
        format!(
            "apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: many-{n}}}
spec:
  image: localhost/none:1
  runtime: {{exec: {{command: [/bin/none]}}}}
  placement:
    nodeSelector: {{kwok.x-k8s.io/node: fake}}
    tolerations: [{{key: kwok.x-k8s.io/node, operator: Exists}}]
"
        )
    };
    (0..number).map(agent).collect::<Vec<_>>().join("---\n")
}

/// The one operator, which leads.
struct Operator {
    cluster: &'static Cluster,
    pod: Pod,
}

impl Operator {
    fn find(cluster: &'static Cluster) -> Self {
        let pod = until("one operator", PATIENCE, || {
            let [pod] = <[Pod; 1]>::try_from(cluster.operators()).ok()?;
            pod.ready.then_some(pod)
        });
        Self { cluster, pod }
    }

    /// Everything that it wrote, by its own count.
    fn writes(&self) -> u64 {
        let path = format!(
            "/api/v1/namespaces/mainstay-system/pods/{}:8080/proxy/metrics",
            self.pod.name
        );
        // An API server that has just begun may not reach a pod at once.
        let text = until("the operator's metrics", PATIENCE, || {
            let output = self.cluster.kubectl(&["get", "--raw", &path], "");
            (output.code == 0).then_some(output.stdout)
        });
        let counts = text
            .lines()
            .filter(|line| line.starts_with("mainstay_operator_writes_total{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        counts.sum()
    }

    fn pss_kib(&self) -> u64 {
        let own = self.pod.processes("mainstay").into_iter();
        own.filter_map(processes::pss_kib).sum()
    }
}
