//! Provider and PromptPack: nothing is made of them; their status says whether they can be used.

use std::time::Duration;

use super::refusal;
use crate::context::Context;
use crate::dereference::dereference;
use crate::error::Error;
use crate::status::{self, Status};
use crate::verdict::Verdict;
use crate::world::Key;

pub(super) async fn reconcile(context: &Context, key: &Key) -> Result<Option<Duration>, Error> {
    let Some(found) = dereference(context, key) else {
        return Ok(None);
    };
    let valid = || Verdict::ready("Valid", "it can be used");
    let verdict = refusal(&found).unwrap_or_else(valid);
    status::update(context, key, &found.written, Status::of(verdict)).await?;
    Ok(None)
}
