//! `mainstay schema`: the JSON Schema of manifests, for editors; `--crd`: the custom resource definitions,
//! for Kubernetes.

use serde_json::json;

use crate::exit::{Exit, Outcome};
use crate::output::{line, pretty};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mainstay schema > mainstay.schema.json\n  \
    # first line of a manifest, for editors with the YAML language server:\n  \
    # yaml-language-server: $schema=./mainstay.schema.json\n  \
    mainstay schema --crd | kubectl apply --server-side -f -")]
pub struct SchemaArgs {
    /// Print the custom resource definitions of the kinds instead, as a list for kubectl
    #[arg(long)]
    crd: bool,
}

pub fn schema(args: &SchemaArgs) -> Outcome {
    let printed = match args.crd {
        true => json!({"apiVersion": "v1", "kind": "List", "items": api::crd::all()}),
        false => api::schema(),
    };
    line(&pretty(&printed))?;
    Ok(Exit::Done)
}
