//! Tasks whose provider fails: they rest between attempts, and at last wait for a person. How long
//! is `core::restart`'s to say.

use std::time::Duration;

use mainstay_core::restart::Class;
use mainstay_core::task::Reason;
use tokio::time::Instant;

use crate::tx::Tx;

impl Tx<'_> {
    /// Attempts that a failing provider cut off are no crashes and aren't counted. The task rests
    /// for a while before the next one; after a quarter of an hour it waits for a person, and says
    /// what the provider said. Returns whether nothing is to start now.
    pub(crate) fn rest(&mut self, id: &str, attempt: u32) -> bool {
        let Some(open) = self.state.tasks.get_mut(id) else {
            return true;
        };
        let task = &open.record.task;
        if task.provider_failed != Some(attempt) {
            return false;
        }
        let cuts = task.provider_cuts;
        let rest_ms = mainstay_core::restart::provider_rest_ms(cuts);
        open.rests_until = rest_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        self.end_process_of_instance(id);
        if rest_ms.is_some() {
            self.shared
                .metrics
                .restart(&self.agent_of(id), Class::CutOff);
        } else {
            let said = self.provider_said(id);
            let message = format!(
                "{cuts} attempts in a row ended because the provider failed{said}. When it works again: mainstay task retry {id}"
            );
            self.park(id, Reason::Provider, None, message);
        }
        self.dispatch();
        true
    }

    /// Tasks that have rested may be worked on again.
    pub(crate) fn wake(&mut self, now: Instant) {
        let mut woken = false;
        for open in self.state.tasks.values_mut() {
            if open.rests_until.is_some_and(|until| until <= now) {
                open.rests_until = None;
                woken = true;
            }
        }
        if woken {
            self.dispatch();
        }
    }

    fn provider_said(&self, id: &str) -> String {
        let said = self.state.last_failure(id);
        said.map(|said| format!(": {said}")).unwrap_or_default()
    }
}
