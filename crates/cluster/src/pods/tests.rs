//! Who a pod is to the registry, how long it stays, and who of its name is let in.

use super::*;
use crate::token::tests::frame;

fn identity(pod: &str, uid: &str) -> Identity {
    Identity {
        owner: "helper".into(),
        pod: pod.into(),
        uid: uid.into(),
        issued_s: now_seconds(),
        expires_s: now_seconds() + 3600,
    }
}

/// A pod whose token was issued so many seconds later.
fn later(pod: &str, uid: &str, seconds: u64) -> Identity {
    let mut identity = identity(pod, uid);
    identity.issued_s += seconds;
    identity
}

fn pods(run: &Path) -> (Pods, mpsc::Receiver<PodEvent>) {
    let (events_tx, events) = mpsc::channel(64);
    (Pods::new(run, events_tx), events)
}

#[tokio::test]
async fn a_pod_that_comes_again_under_its_name_is_another_shim_and_the_old_one_stays_out() {
    let run = tempfile::tempdir().unwrap();
    let (pods, _events) = pods(run.path());
    let first = frame(String::new(), "helper");
    pods.meet(&identity("helper-0", "one"), &first)
        .await
        .unwrap();
    let before = pods.instances().remove(0);
    pods.meet(&later("helper-0", "two", 9), &first)
        .await
        .unwrap();
    let after = pods.instances().remove(0);
    assert_ne!(before.shim_pid, after.shim_pid);
    let old = pods.meet(&identity("helper-0", "one"), &first).await;
    assert_eq!(old, Err(PodError::Replaced));
    assert!(pods.gateway(&identity("helper-0", "one")).is_none());
    assert!(pods.gateway(&identity("helper-0", "two")).is_some());
    // The new one's socket is not the old one's to remove.
    assert!(Path::new(&after.socket).exists());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_stays_out_when_its_successor_is_forgotten() {
    let run = tempfile::tempdir().unwrap();
    let (pods, _events) = pods(run.path());
    let first = frame(String::new(), "helper");
    let (old, new) = (identity("a", "one"), later("a", "two", 9));
    pods.meet(&new, &first).await.unwrap();
    assert_eq!(pods.meet(&old, &first).await, Err(PodError::Replaced));
    tokio::time::advance(LISTED + Duration::from_secs(1)).await;
    assert!(pods.tidy());
    assert_eq!(pods.meet(&old, &first).await, Err(PodError::Replaced));
    pods.meet(&new, &first).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_calls_itself_another_kind_keeps_its_sockets_and_is_refused() {
    let run = tempfile::tempdir().unwrap();
    let (pods, _events) = pods(run.path());
    let mut first = frame(String::new(), "helper");
    pods.meet(&identity("a", "one"), &first).await.unwrap();
    let before = pods.instances().remove(0).shim_pid;
    first.kind = InstanceKind::Service;
    let other = pods.meet(&identity("a", "one"), &first).await;
    assert_eq!(other, Err(PodError::OtherKind));
    assert_eq!(pods.instances().remove(0).shim_pid, before);
}

#[tokio::test]
async fn pods_of_an_owner_are_numbered_and_a_number_is_used_again() {
    let run = tempfile::tempdir().unwrap();
    let (pods, _events) = pods(run.path());
    let first = frame(String::new(), "helper");
    for pod in ["a", "b", "c"] {
        pods.meet(&identity(pod, pod), &first).await.unwrap();
    }
    pods.lock().by_name.remove("b");
    pods.meet(&identity("d", "d"), &first).await.unwrap();
    let indices: Vec<u32> = pods.instances().iter().map(|pod| pod.index).collect();
    assert_eq!(indices, [0, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_an_offer_stays_listed_for_a_while_and_its_listener_ends_with_it() {
    let run = tempfile::tempdir().unwrap();
    let (pods, mut events) = pods(run.path());
    let first = frame(String::new(), "helper");
    pods.meet(&identity("a", "a"), &first).await.unwrap();
    let Some(PodEvent::Gateway { listener, .. }) = events.recv().await else {
        panic!("no listener");
    };
    tokio::time::advance(LISTED).await;
    assert!(!pods.tidy());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(pods.tidy());
    assert!(pods.instances().is_empty());
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::InvalidInput
    );
}
