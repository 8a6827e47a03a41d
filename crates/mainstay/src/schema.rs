//! `mainstay schema`: the JSON Schema of manifests.

use crate::exit::{Exit, Outcome};
use crate::output::{line, pretty};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay schema > mainstay.schema.json\n  \
    # first line of a manifest, for editors with the YAML language server:\n  \
    # yaml-language-server: $schema=./mainstay.schema.json")]
pub struct SchemaArgs {}

pub fn schema(_args: &SchemaArgs) -> Outcome {
    line(&pretty(&api::schema()))?;
    Ok(Exit::Done)
}
