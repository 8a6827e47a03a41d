//! The bill of materials, in CycloneDX 1.5: what the program links, from what cargo resolved.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::metadata::{Metadata, Package};

/// The bill of one package and everything it links.
pub fn bill(metadata: &Metadata, root: &str, built: &BTreeSet<(String, String)>) -> Result<Value> {
    let program = metadata.package(root).context("no such package")?;
    let is_built =
        |package: &&Package| built.contains(&(package.name.clone(), package.version.clone()));
    let linked: Vec<&Package> = metadata
        .linked(root)
        .iter()
        .filter_map(|id| metadata.package(id))
        .filter(is_built)
        .collect();
    let components: Vec<Value> = linked.iter().map(|package| component(package)).collect();
    let dependencies: Vec<Value> = std::iter::once(&program)
        .chain(&linked)
        .map(|package| dependency(metadata, package, &linked))
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(program)},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(package: &Package) -> Value {
    let kind = if package.name == "mainstay" {
        "application"
    } else {
        "library"
    };
    let mut component = json!({
        "type": kind,
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
        "purl": reference(package),
    });
    if let Some(license) = &package.license {
        // Old manifests separate licences by a slash; SPDX says OR.
        component["licenses"] =
            json!([{"expression": license.replace(" / ", "/").replace('/', " OR ")}]);
    }
    if package.source.is_none() {
        component["publisher"] = json!("Mainstay's authors");
    }
    component
}

fn dependency(metadata: &Metadata, package: &Package, linked: &[&Package]) -> Value {
    let needs: BTreeSet<String> = metadata
        .normal(&package.id)
        .iter()
        .filter_map(|id| linked.iter().find(|package| package.id == **id))
        .map(|package| reference(package))
        .collect();
    json!({"ref": reference(package), "dependsOn": needs})
}

/// A package URL, as the field's tools match vulnerabilities by.
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}
