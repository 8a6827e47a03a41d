//! `mainstay token`: the owner's token, for programs that use the API.

use serde_json::Value;

use crate::client::{CallError, Client};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::line;
use crate::place::PlaceArgs;
use crate::up::owner_token;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  curl -H \"Authorization: Bearer $(mainstay token)\" http://127.0.0.1:7080/api/v1/agents"
)]
pub struct TokenArgs {}

pub async fn token(place: &PlaceArgs, _args: TokenArgs) -> Outcome {
    let client = Client::new(place)?;
    let token = match client.get("/control/token").await {
        Ok(answer) => answer
            .get("token")
            .and_then(Value::as_str)
            .map(str::to_owned),
        // The token is the state's, whether or not somebody runs it.
        Err(CallError::Lost(failure)) => match client.socket().and(owner_token(&place.state()?)) {
            Some(token) => Some(token),
            None => return Err(failure),
        },
        Err(error) => return Err(error.into()),
    };
    line(&token.ok_or_else(|| Failure::new(Exit::Failed, "the hub gave no token"))?)?;
    Ok(Exit::Done)
}
