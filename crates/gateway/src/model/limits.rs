//! How hard a provider may be used, over all agents: calls at once, requests and tokens in any
//! minute. A call that finds no room waits, at most as long as the provider's time-out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::fleet::{Limits, Provider};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Room for one call, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    gauge: Arc<Gauge>,
    entered: Option<Instant>,
}

impl Slot {
    /// Puts what was used in place of what was estimated.
    pub fn used(&self, tokens: u64) {
        if let Some(entered) = self.entered {
            lock(&self.gauge.window).correct(entered, tokens);
        }
    }
}

#[derive(Debug)]
struct Gauge {
    limits: Limits,
    slots: Arc<Semaphore>,
    window: Mutex<Window>,
}

/// The gauges of all providers.
#[derive(Debug, Default)]
pub struct Gauges {
    by_provider: Mutex<HashMap<String, Arc<Gauge>>>,
}

impl Gauges {
    /// Waits for room; `None` when there was none in time.
    pub async fn enter(&self, provider: &Provider, tokens: u64) -> Option<Slot> {
        let gauge = self.gauge(provider);
        let patience = Duration::from_millis(provider.limits.timeout_ms);
        tokio::time::timeout(patience, wait(gauge, tokens))
            .await
            .ok()?
    }

    /// The provider's gauge; a new one when its limits were changed.
    fn gauge(&self, provider: &Provider) -> Arc<Gauge> {
        let mut by_provider = lock(&self.by_provider);
        let known = by_provider
            .get(&provider.name)
            .filter(|gauge| gauge.limits == provider.limits);
        if let Some(gauge) = known {
            return gauge.clone();
        }
        let gauge = Arc::new(Gauge {
            slots: Arc::new(Semaphore::new(provider.limits.concurrency as usize)),
            limits: provider.limits.clone(),
            window: Mutex::default(),
        });
        by_provider.insert(provider.name.clone(), gauge.clone());
        gauge
    }
}

async fn wait(gauge: Arc<Gauge>, tokens: u64) -> Option<Slot> {
    let permit = gauge.slots.clone().acquire_owned().await.ok()?;
    if gauge.limits.requests_per_minute.is_none() && gauge.limits.tokens_per_minute.is_none() {
        return Some(Slot {
            _permit: permit,
            gauge,
            entered: None,
        });
    }
    loop {
        let now = Instant::now();
        let entered = lock(&gauge.window).enter(&gauge.limits, now, tokens);
        match entered {
            Ok(()) => {
                return Some(Slot {
                    _permit: permit,
                    gauge,
                    entered: Some(now),
                });
            }
            Err(wait) => tokio::time::sleep(wait).await,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section leaves its value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calls of the last minute.
#[derive(Debug, Default)]
struct Window {
    calls: VecDeque<(Instant, u64)>,
}

impl Window {
    /// Takes the call in, or says when to look again.
    fn enter(&mut self, limits: &Limits, now: Instant, tokens: u64) -> Result<(), Duration> {
        while self
            .calls
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE)
        {
            self.calls.pop_front();
        }
        let requests_full = limits
            .requests_per_minute
            .is_some_and(|most| self.calls.len() >= most as usize);
        let used: u64 = self.calls.iter().map(|(_, tokens)| *tokens).sum();
        let tokens_full = limits
            .tokens_per_minute
            .is_some_and(|most| used.saturating_add(tokens) > most);
        match self.calls.front() {
            // A call that is larger than the limit itself goes alone.
            Some((oldest, _)) if requests_full || tokens_full => {
                Err((*oldest + MINUTE).duration_since(now))
            }
            _ => {
                self.calls.push_back((now, tokens));
                Ok(())
            }
        }
    }

    fn correct(&mut self, entered: Instant, tokens: u64) {
        if let Some(call) = self.calls.iter_mut().find(|(at, _)| *at == entered) {
            call.1 = tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: Option<u32>, tokens: Option<u64>) -> Limits {
        Limits {
            concurrency: 1,
            requests_per_minute: requests,
            tokens_per_minute: tokens,
            timeout_ms: 1000,
        }
    }

    #[test]
    fn no_minute_holds_more_requests_than_allowed() {
        let (mut window, start) = (Window::default(), Instant::now());
        let limits = limits(Some(2), None);
        assert_eq!(window.enter(&limits, start, 1), Ok(()));
        assert_eq!(
            window.enter(&limits, start + Duration::from_secs(50), 1),
            Ok(())
        );
        let wait = window.enter(&limits, start + Duration::from_secs(55), 1);
        assert_eq!(wait, Err(Duration::from_secs(5)));
        assert_eq!(
            window.enter(&limits, start + Duration::from_secs(60), 1),
            Ok(())
        );
        // The second one is still within the minute.
        assert!(
            window
                .enter(&limits, start + Duration::from_secs(61), 1)
                .is_err()
        );
    }

    #[test]
    fn tokens_count_as_used_once_that_is_known() {
        let (mut window, start) = (Window::default(), Instant::now());
        let limits = limits(None, Some(100));
        assert_eq!(window.enter(&limits, start, 90), Ok(()));
        let later = start + Duration::from_secs(1);
        assert!(window.enter(&limits, later, 20).is_err());
        window.correct(start, 10);
        assert_eq!(window.enter(&limits, later, 20), Ok(()));
    }

    #[test]
    fn a_call_above_the_limit_goes_alone() {
        let (mut window, start) = (Window::default(), Instant::now());
        assert_eq!(window.enter(&limits(None, Some(10)), start, 1000), Ok(()));
    }
}
