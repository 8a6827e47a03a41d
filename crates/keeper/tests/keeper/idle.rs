//! A service that crashes and crashes backs off; a task that comes ends the wait.

use std::time::{Duration, Instant};

use contract::shim::{Fact, ServiceToken, ToShim};

use crate::fleet::{Fleet, Hub, service_agent};

fn marks(hub: &mut Hub, idle: bool) {
    hub.send(&ToShim::Marks {
        hold: false,
        productive: false,
        idle,
    });
}

#[test]
fn a_service_nobody_waits_for_is_started_at_once_when_somebody_does() {
    let fleet = Fleet::up(&service_agent("s", "exit 1"));
    let mut hub = fleet.hub("s-0");
    marks(&mut hub, true);
    let tokens = (1..=20).map(|incarnation| ServiceToken {
        incarnation,
        token: format!("token-{incarnation}"),
        env: Default::default(),
    });
    hub.send(&ToShim::ServiceTokens {
        generation: 1,
        tokens: tokens.collect(),
    });
    let (last, delay_ms) = hub.fact(|fact| match fact {
        Fact::ServiceEnded {
            incarnation,
            delay_ms,
            ..
        } if *delay_ms >= 6000 => Some((*incarnation, *delay_ms)),
        _ => None,
    });
    assert_eq!(delay_ms, 6400, "longer than where somebody waits");
    let before = Instant::now();
    marks(&mut hub, false);
    hub.fact(|fact| match fact {
        Fact::ServiceStarted { incarnation, .. } if *incarnation > last => Some(()),
        _ => None,
    });
    let waited = before.elapsed();
    assert!(waited < Duration::from_secs(2), "{waited:?}");
}
