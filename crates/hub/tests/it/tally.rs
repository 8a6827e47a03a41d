//! What an agent spent today.

use hub::step::{Settled, StepTurn};
use hub::tally::Tally;
use mainstay_core::usage::Cost;

use crate::home::{Home, fleet, model};

/// One model call that costs this.
async fn spend(home: &mut Home, usd: Option<f64>) {
    let task = home.submit("x").await.id;
    let (_, attempts) = home.shim.assigned().await;
    let caller = home.hub.identify(&attempts[0].token).await.unwrap();
    let StepTurn::Run(mut run, _stream) = home.hub.step_begin(&caller, model("one")).await.unwrap()
    else {
        panic!("a new call")
    };
    run.head(200, "application/json");
    run.finish(Settled {
        cost: Cost::from_usd(usd),
        ..Settled::default()
    })
    .await;
    home.ended(&task, 1, crate::home::exited(0, "done"), false)
        .await;
}

#[tokio::test]
async fn what_was_spent_today_is_known_to_the_next_hub_and_counted_once() {
    let state = tempfile::tempdir().unwrap();
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    spend(&mut home, Some(0.25)).await;
    let tally = home.hub.tally(Tally::default()).await.unwrap();
    assert_eq!(tally.usd("helper"), Some(0.25));
    assert_eq!(tally.usd("other"), Some(0.0));
    spend(&mut home, Some(0.5)).await;
    let tally = home.hub.tally(tally).await.unwrap();
    assert_eq!(tally.usd("helper"), Some(0.75));
    home.end().await;
    let mut home = Home::start(state.path(), &fleet(|_| {}), vec![]).await;
    let again = home.hub.tally(Tally::default()).await.unwrap();
    assert_eq!(again.usd("helper"), Some(0.75));
    // A price that isn't known makes the sum unknown.
    spend(&mut home, None).await;
    assert_eq!(home.hub.tally(again).await.unwrap().usd("helper"), None);
}
