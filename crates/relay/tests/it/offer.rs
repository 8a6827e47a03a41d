//! Offers: what they say, what they are taken for, and what the kubelet is told of them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use contract::pod::{Purpose, SHIM_SOCKET, Target, ToPod, ToRelay, below};

use crate::pod::{TestPod, open, service};

#[test]
fn two_offers_lie_at_the_hub_and_one_that_is_taken_is_replaced() {
    let service_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service_listener.local_addr().unwrap().port();
    let mut pod = TestPod::start(&service(Some(port)));
    let mut first = pod.door.next(Purpose::Offer);
    let second = pod.door.next(Purpose::Offer);
    let hello = &first.hello;
    let said = (
        hello.token.as_str(),
        hello.owner.as_str(),
        hello.service_port,
    );
    assert_eq!(said, ("first", "echo", Some(port)));
    assert_eq!(hello.isolation, "partial: landlock");
    assert_eq!((hello.template.as_str(), hello.draining), ("sha-1", false));
    let third = pod
        .door
        .next_within(Purpose::Offer, Duration::from_millis(200));
    assert!(third.is_none(), "two are enough");
    // The token was renewed meanwhile.
    pod.token("second");
    open(&mut first, Target::Port { port });
    let (mut near, _) = service_listener.accept().unwrap();
    first.write(b"ping");
    let mut bytes = [0; 4];
    near.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
    near.write_all(b"pong").unwrap();
    assert_eq!(first.read(4), b"pong");
    assert_eq!(pod.door.next(Purpose::Offer).hello.token, "second");
    drop(second);
}

#[test]
fn what_the_hub_sends_right_behind_its_order_reaches_the_shim() {
    let mut pod = TestPod::start(&service(None));
    let socket = below(pod.directory.path(), SHIM_SOCKET);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let shim = UnixListener::bind(&socket).unwrap();
    let mut offer = pod.door.next(Purpose::Offer);
    let order = contract::frame::encode(&ToPod::Open {
        target: Target::Shim,
    });
    offer.write(&[order.unwrap(), b"hello".to_vec()].concat());
    let (mut near, _) = shim.accept().unwrap();
    let mut bytes = [0; 5];
    near.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    // A hub that breaks is an end to the shim, and the other way round.
    drop(offer);
    assert_eq!(near.read(&mut bytes).unwrap(), 0);
}

#[test]
fn what_cannot_be_reached_is_a_connection_that_broke() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    let mut pod = TestPod::start(&service(None));
    for target in [Target::Shim, Target::Port { port }] {
        let mut offer = pod.door.next(Purpose::Offer);
        open(&mut offer, target);
        assert!(offer.read_to_end().is_err(), "{target:?}");
    }
    free.set_nonblocking(true).unwrap();
    assert!(free.accept().is_err(), "it is not the service's port");
}

#[test]
fn a_pod_is_ready_when_the_hub_has_it_and_says_so() {
    let mut pod = TestPod::start(&service(None));
    assert_eq!(pod.ask("/livez").0, 200);
    assert_eq!(pod.ask("/other").0, 404);
    let mut offer = pod.door.next(Purpose::Offer);
    assert_eq!(pod.ask("/readyz").0, 503, "nobody welcomed it");
    offer.welcome();
    pod.until_readiness(200);
    let key = "the provider refuses its key".to_owned();
    offer.send(&ToPod::Ready {
        ready: false,
        reason: key.clone(),
    });
    assert!(pod.until_readiness(503).contains(&key));
    offer.send(&ToPod::Ready {
        ready: true,
        reason: String::new(),
    });
    pod.until_readiness(200);
    // A moment without a hub is none; a few seconds are one.
    drop(offer);
    pod.door.close();
    assert_eq!(pod.ask("/readyz").0, 200);
    let why = pod.until_readiness(503);
    assert!(why.contains("cannot connect to the hub"), "{why}");
    pod.door.open_again();
    pod.door.next(Purpose::Offer).welcome();
}

#[test]
fn a_pod_that_is_told_to_end_says_so_in_new_offers_and_leaves_when_let_go() {
    let mut pod = TestPod::start(&service(None));
    let mut offers = [pod.door.next(Purpose::Offer), pod.door.next(Purpose::Offer)];
    for offer in &mut offers {
        offer.welcome();
    }
    pod.until_readiness(200);
    pod.tell(&ToRelay {
        draining: true,
        ..service(None)
    });
    for offer in &mut offers {
        assert!(
            offer.read_to_end().is_ok(),
            "the old ones end in good order"
        );
        assert!(pod.door.next(Purpose::Offer).hello.draining);
    }
    assert!(pod.until_readiness(503).contains("told to end"));
    pod.end();
}

#[test]
fn a_hub_that_another_certificate_vouches_for_gets_no_token() {
    let mut pod = TestPod::start(&service(None));
    let early = [pod.door.next(Purpose::Offer), pod.door.next(Purpose::Offer)];
    let other = testkit::pod_door::PodDoor::open();
    let file = below(pod.directory.path(), contract::pod::CA_FILE);
    std::fs::write(&file, &other.certificate).unwrap();
    drop(early);
    let refused = Duration::from_millis(500);
    assert!(pod.door.next_within(Purpose::Offer, refused).is_none());
    std::fs::write(&file, &pod.door.certificate).unwrap();
    pod.door.next(Purpose::Offer).welcome();
}
