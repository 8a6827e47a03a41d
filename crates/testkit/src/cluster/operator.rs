//! Mainstay's operator in a cluster: its pods, and how many of them there are.

use super::{Cluster, PATIENCE, Pod};
use crate::until;

/// Its namespace, as kubectl and Helm are told.
pub const OPERATOR: &str = "--namespace=mainstay-system";
const PODS: [&str; 3] = [
    "pods",
    OPERATOR,
    "--selector=app.kubernetes.io/name=mainstay-operator",
];

impl Cluster {
    /// The operators' pods that aren't ending.
    #[must_use]
    pub fn operators(&self) -> Vec<Pod> {
        let list = self.get(&PODS).unwrap();
        let items = list["items"].as_array().unwrap().iter();
        items.filter_map(Pod::read).collect()
    }

    /// So many operators, until what is returned is dropped.
    pub fn operate(&self, number: usize) -> Operators<'_> {
        let operators = Operators(self);
        self.scale_operator(number);
        operators
    }

    /// Returns once all of them are ready and no other is left: one that is ending still acts.
    fn scale_operator(&self, number: usize) {
        let replicas = format!("--replicas={number}");
        self.run(&["scale", "deployment/mainstay-operator", &replicas, OPERATOR]);
        until("the operators", PATIENCE, || {
            let list = self.get(&PODS)?;
            let all = list["items"].as_array()?;
            let ready = all.iter().filter_map(Pod::read).filter(|pod| pod.ready);
            (all.len() == number && ready.count() == number).then_some(())
        });
    }
}

/// Another number of operators than one, which it is again when this is dropped.
#[must_use]
pub struct Operators<'a>(&'a Cluster);

impl Drop for Operators<'_> {
    fn drop(&mut self) {
        self.0.scale_operator(1);
    }
}
