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

fn tokens(hub: &mut Hub, incarnations: std::ops::RangeInclusive<u32>) {
    let tokens = incarnations.map(|incarnation| ServiceToken {
        incarnation,
        token: format!("token-{incarnation}"),
        env: Default::default(),
    });
    hub.send(&ToShim::ServiceTokens {
        generation: 1,
        tokens: tokens.collect(),
    });
}

fn ended(hub: &mut Hub, least_delay_ms: u64) -> (u32, u64) {
    hub.fact(|fact| match fact {
        Fact::ServiceEnded {
            incarnation,
            delay_ms,
            ..
        } if *delay_ms >= least_delay_ms => Some((*incarnation, *delay_ms)),
        _ => None,
    })
}

#[test]
fn a_service_that_waits_to_start_again_survives_a_hub_that_knows_of_none_of_its_processes() {
    let fleet = Fleet::up(&service_agent("s", "exit 1"));
    let mut hub = fleet.hub("s-0");
    tokens(&mut hub, 1..=20);
    let (last, _) = ended(&mut hub, 400);
    tokens(&mut hub, 1..=3);
    hub.fact(|fact| match fact {
        Fact::ServiceStarted { incarnation, .. } if *incarnation > last => Some(()),
        _ => None,
    });
}

#[test]
fn a_service_that_kept_crashing_starts_at_once_when_its_manifest_is_repaired() {
    let fleet = Fleet::up(&service_agent("s", "exit 1"));
    let mut hub = fleet.hub("s-0");
    marks(&mut hub, true);
    tokens(&mut hub, 1..=20);
    let (last, _) = ended(&mut hub, 3200);
    let repaired = service_agent("s", "echo x >&$MAINSTAY_READY_FD; exec sleep 1000");
    fleet.write("fleet.yaml", &repaired);
    hub.fact(|fact| match fact {
        Fact::ServiceReady { incarnation, .. } if *incarnation > last => Some(()),
        _ => None,
    });
}

#[test]
fn a_service_nobody_waits_for_is_started_at_once_when_somebody_does() {
    let fleet = Fleet::up(&service_agent("s", "exit 1"));
    let mut hub = fleet.hub("s-0");
    marks(&mut hub, true);
    tokens(&mut hub, 1..=20);
    let (last, delay_ms) = ended(&mut hub, 6000);
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
