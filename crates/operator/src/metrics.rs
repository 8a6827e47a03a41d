//! What the operator counts, for `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counters by name and labels, in the form in which they are shown.
#[derive(Default)]
pub(crate) struct Metrics {
    counters: Mutex<BTreeMap<(&'static str, String), u64>>,
}

const HELP: [(&str, &str); 5] = [
    (
        "mainstay_operator_errors_total",
        "Reconciles that failed, by kind and category.",
    ),
    ("mainstay_operator_reconciles_total", "Reconciles, by kind."),
    (
        "mainstay_operator_resolutions_total",
        "Times that a namespace's objects were resolved.",
    ),
    (
        "mainstay_operator_watch_errors_total",
        "Watches that broke and were begun again, by kind.",
    ),
    (
        "mainstay_operator_writes_total",
        "Writes to the API server, by kind.",
    ),
];

impl Metrics {
    pub(crate) fn reconciled(&self, kind: &str) {
        self.count(
            "mainstay_operator_reconciles_total",
            format!("{{kind=\"{kind}\"}}"),
        );
    }

    pub(crate) fn failed(&self, kind: &str, category: &str) {
        let labels = format!("{{kind=\"{kind}\",category=\"{category}\"}}");
        self.count("mainstay_operator_errors_total", labels);
    }

    pub(crate) fn wrote(&self, kind: &str) {
        self.count(
            "mainstay_operator_writes_total",
            format!("{{kind=\"{kind}\"}}"),
        );
    }

    pub(crate) fn watch_broke(&self, kind: &str) {
        self.count(
            "mainstay_operator_watch_errors_total",
            format!("{{kind=\"{kind}\"}}"),
        );
    }

    pub(crate) fn resolved(&self) {
        self.count("mainstay_operator_resolutions_total", String::new());
    }

    fn count(&self, name: &'static str, labels: String) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        *counters.entry((name, labels)).or_default() += 1;
    }

    /// In Prometheus' text form; `queued` is how many objects wait.
    pub(crate) fn render(&self, queued: usize, leads: bool) -> String {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, help) in HELP {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            let own = counters.iter().filter(|((own, _), _)| *own == name);
            for ((_, labels), value) in own {
                text.push_str(&format!("{name}{labels} {value}\n"));
            }
        }
        text.push_str(&format!(
            "# HELP mainstay_operator_queued Objects that wait for a reconcile.\n\
             # TYPE mainstay_operator_queued gauge\nmainstay_operator_queued {queued}\n\
             # HELP mainstay_operator_leads Whether this operator leads.\n\
             # TYPE mainstay_operator_leads gauge\nmainstay_operator_leads {}\n",
            u8::from(leads)
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_shown_by_name_and_label() {
        let metrics = Metrics::default();
        metrics.wrote("Deployment");
        metrics.wrote("Deployment");
        metrics.failed("Agent", "user");
        let text = metrics.render(3, true);
        assert!(
            text.contains("mainstay_operator_writes_total{kind=\"Deployment\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("{kind=\"Agent\",category=\"user\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("mainstay_operator_queued 3\n"), "{text}");
    }
}
