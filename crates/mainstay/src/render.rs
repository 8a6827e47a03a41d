//! `mainstay render`: a fleet as plain objects of whatever else runs it, for those who apply them
//! with tools of their own.
//!
//! Manifests are read as `up` reads them, so what is wrong there is wrong here. Nothing is written
//! but to standard output; what can't be said in the objects is said on standard error.

mod compose;
mod needs;
mod systemd;
mod yaml;

use std::path::PathBuf;

use api::{Home, Kind, Resolved};
use operator::install::{Authority, Options};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};
use crate::kubernetes::ChoiceArgs;
use crate::output::write_out;
use crate::place::{PlaceArgs, absolute};
use crate::up::knowledge;
use needs::Needs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay render --to kubernetes fleet.yaml | kubectl apply -f -\n  \
    mainstay render --to kubernetes --install --image-prefix registry.example/team > mainstay.yaml\n  \
    mainstay render --to compose ./fleet > compose.yaml && docker compose up -d\n  \
    mainstay render --to systemd ./fleet | sudo tee /etc/systemd/system/mainstay.service"
)]
pub struct RenderArgs {
    /// What is to run it
    #[arg(long, value_name = "HOME")]
    to: Target,
    /// Manifests: files, or directories with their subdirectories
    path: Vec<PathBuf>,
    /// Kubernetes: print the installation, too
    #[arg(long)]
    install: bool,
    /// For the Helm chart: a webhook whose authority is this word, which the chart replaces
    #[arg(long, value_name = "WORD", hide = true, requires = "install")]
    authority: Option<String>,
    #[command(flatten)]
    choices: ChoiceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    Kubernetes,
    Compose,
    Systemd,
}

pub fn render(place: &PlaceArgs, args: &RenderArgs) -> Outcome {
    if args.install && args.to != Target::Kubernetes {
        return Err(Failure::usage("--install is for --to kubernetes"));
    }
    if args.path.is_empty() && !args.install {
        return Err(Failure::usage("no manifest is named").with_hint("name a file or a directory"));
    }
    let namespace = place.namespace().unwrap_or(operator::install::NAMESPACE);
    let mut options = args.choices.options(namespace);
    options.authority = args.authority.as_ref().map(|word| Authority {
        certificate: word.clone(),
        key: format!("{word}-key"),
    });
    let paths = args.path.iter().map(|path| absolute(path));
    let paths = paths.collect::<Result<Vec<PathBuf>, Failure>>()?;
    let home = match args.to {
        Target::Kubernetes => Home::Kubernetes,
        Target::Compose | Target::Systemd => Home::Box,
    };
    let resolved = match paths.is_empty() {
        true => None,
        false => Some(read(&paths, home)?),
    };
    let text = match (args.to, &resolved) {
        (Target::Kubernetes, resolved) => {
            kubernetes(args.install.then_some(&options), resolved.as_ref())
        }
        (Target::Compose, Some(resolved)) => {
            let needs = Needs::of(&resolved.fleet);
            warn(&compose::trouble(&needs));
            compose::render(&paths, &needs, &options.image)
        }
        (Target::Systemd, Some(resolved)) => systemd::render(&paths, &Needs::of(&resolved.fleet)),
        // Without a fleet there is nothing to run.
        (Target::Compose | Target::Systemd, None) => String::new(),
    };
    write_out(text.as_bytes())?;
    Ok(Exit::Done)
}

fn read(paths: &[PathBuf], home: Home) -> Result<Resolved, Failure> {
    let resolved = keeper::read_manifests(paths, home, &knowledge());
    let resolved =
        resolved.map_err(|problems| Failure::new(Exit::Manifest, problems.to_string()))?;
    if resolved.objects.is_empty() {
        return Err(Failure::new(Exit::Manifest, "there is no manifest"));
    }
    for warning in &resolved.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(resolved)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

fn kubernetes(install: Option<&Options>, resolved: Option<&Resolved>) -> String {
    let mut objects = install.map_or_else(Vec::new, |options| {
        operator::install::objects(options, api::crd::all())
    });
    for object in resolved.into_iter().flat_map(|resolved| &resolved.objects) {
        let mut rendered = object.to_json();
        if object.kind() != Kind::Workspace {
            rendered["metadata"]["namespace"] = object.workspace().into();
        }
        // Who scales an agent writes its replicas, and nobody who applies a manifest.
        if let Some(spec) = rendered["spec"].as_object_mut()
            && spec.contains_key("scale")
        {
            spec.shift_remove("replicas");
        }
        objects.push(rendered);
    }
    let texts: Vec<String> = objects.iter().map(yaml::write).collect();
    texts.join("---\n")
}

/// Keys in the order in which they are given.
fn map(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    fields.into_iter().fold(json!({}), |mut map, (key, value)| {
        map[key] = value;
        map
    })
}
