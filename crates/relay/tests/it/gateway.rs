//! The agent's connections: what arrives of them, and how they end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use contract::pod::{Purpose, ToPod};

use crate::pod::{SOON, TestPod, service};

#[test]
fn a_request_comes_with_the_hello_and_both_ends_are_passed_on_as_ends() {
    let mut pod = TestPod::start(&service(None));
    let mut agent = pod.agent();
    agent.write_all(b"request").unwrap();
    let mut hub = pod.door.next(Purpose::Gateway);
    // Before any welcome.
    assert_eq!(hub.read(7), b"request");
    hub.welcome();
    agent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hub.read_to_end().unwrap(), b"");
    hub.write(b"answer");
    hub.finish();
    let mut answer = Vec::new();
    agent.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
}

#[test]
fn much_passes_unchanged_in_both_directions() {
    let mut pod = TestPod::start(&service(None));
    let mut agent = pod.agent();
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut writer = agent.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut hub = pod.door.next(Purpose::Gateway);
    hub.welcome();
    assert!(hub.read_to_end().unwrap() == sent);
    writing.join().unwrap();
    let echoing = std::thread::spawn(move || {
        hub.write(&sent);
        hub.finish();
        sent
    });
    let mut back = Vec::new();
    agent.read_to_end(&mut back).unwrap();
    assert!(back == echoing.join().unwrap());
}

#[test]
fn an_answer_that_breaks_off_is_a_reset_to_the_agent() {
    let mut pod = TestPod::start(&service(None));
    let mut agent = pod.agent();
    let mut hub = pod.door.next(Purpose::Gateway);
    hub.welcome();
    hub.write(b"half");
    let mut bytes = [0; 4];
    agent.read_exact(&mut bytes).unwrap();
    drop(hub);
    let broken = agent.read(&mut bytes).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_agent_that_breaks_off_is_no_clean_end_to_the_hub() {
    let mut pod = TestPod::start(&service(None));
    let agent = pod.agent();
    let mut hub = pod.door.next(Purpose::Gateway);
    hub.welcome();
    let zero = Some(Duration::ZERO);
    rustix::net::sockopt::set_socket_linger(&agent, zero).unwrap();
    drop(agent);
    assert!(hub.read_to_end().is_err());
}

#[test]
fn while_the_hub_is_away_a_connection_is_held_and_then_reset() {
    let mut pod = TestPod::start(&service(None));
    pod.door.close();
    let mut agent = pod.agent();
    agent.write_all(b"request").unwrap();
    let mut late = pod.agent();
    let since = Instant::now();
    pod.door.open_again();
    let mut hub = pod.door.next(Purpose::Gateway);
    assert!(since.elapsed() < Duration::from_secs(3));
    // Which of the two came first is nobody's business: both are served.
    let mut other = pod.door.next(Purpose::Gateway);
    hub.welcome();
    other.welcome();
    drop((hub, other));
    pod.door.close();
    let mut bytes = [0; 1];
    assert!(agent.read(&mut bytes).is_err() && late.read(&mut bytes).is_err());
    let mut agent = pod.agent();
    let since = Instant::now();
    let broken = agent.read(&mut bytes).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    assert!(since.elapsed() > Duration::from_secs(4) && since.elapsed() < SOON);
}

#[test]
fn what_the_hub_did_not_take_is_sent_again_and_what_it_may_have_taken_is_not() {
    let mut pod = TestPod::start(&service(None));
    let mut agent = pod.agent();
    agent.write_all(b"request").unwrap();
    let later = ToPod::Refused {
        reason: "starting".to_owned(),
        retry: true,
    };
    pod.door.next(Purpose::Gateway).send(&later);
    let mut hub = pod.door.next(Purpose::Gateway);
    assert_eq!(hub.read(7), b"request");
    // It breaks before it answers: nobody knows what it did with the request.
    drop(hub);
    let mut bytes = [0; 1];
    assert!(agent.read(&mut bytes).is_err());
    let again = Duration::from_millis(500);
    assert!(pod.door.next_within(Purpose::Gateway, again).is_none());
}

#[test]
fn a_connection_that_the_hub_never_takes_is_reset_at_once() {
    let mut pod = TestPod::start(&service(None));
    let mut agent = pod.agent();
    let since = Instant::now();
    pod.door.next(Purpose::Gateway).send(&ToPod::Refused {
        reason: "this pod is none of mine".to_owned(),
        retry: false,
    });
    let mut bytes = [0; 1];
    let broken = agent.read(&mut bytes).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    assert!(since.elapsed() < Duration::from_secs(3));
}
