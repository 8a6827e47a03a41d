//! A container image made without a container engine: one layer with a few files (mostly one static
//! binary) and `/tmp`. It's written as an OCI layout, in a folder or in an archive; the archive is a
//! docker-archive at the same time, as `docker save` writes it, so that containerd, Docker, Podman
//! and skopeo read it, old ones too.
//!
//! The same files make the same bytes: times are zero, owners are root, names are in their order.
//! It must not know what the image is for; whoever builds one says what's in it and what it runs.

mod archive;
pub mod mainstay;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use archive::{Folder, Sink, Tar};

/// Who runs in the image where the pod doesn't say: nobody in particular, and not root.
const USER: &str = "65532:65532";
/// What this file and the one beside it say, for whoever makes an image again when they change.
pub const SOURCES: [&str; 2] = [include_str!("image.rs"), include_str!("image/archive.rs")];

/// What an image is made of.
pub struct Image {
    /// With its tag, `localhost/probe:1`.
    pub name: String,
    /// The command and its first arguments.
    pub entrypoint: Vec<String>,
    /// Where each file lies in the image, without the leading slash.
    pub files: Vec<(String, Content)>,
}

/// What a file of an image is.
pub enum Content {
    /// A program or library, as it lies here.
    Program(PathBuf),
    /// What is only read.
    Text(Vec<u8>),
}

/// A part of an image with its digest.
struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Image {
    /// Writes the archive; a half-written one never has the final name.
    pub fn write(&self, to: &Path) -> Result<()> {
        let half = to.with_added_extension("half");
        let write = || -> Result<()> {
            let mut archive = Tar::new(BufWriter::new(File::create(&half)?));
            self.put_into(&mut archive)?;
            archive.end()?.flush()?;
            fs::rename(&half, to)?;
            Ok(())
        };
        write().with_context(|| format!("failed to write {} of {}", to.display(), self.name))
    }

    /// Writes the layout into a folder that isn't there or empty.
    pub fn write_layout(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        if fs::read_dir(to)?.next().is_some() {
            anyhow::bail!("{} has something in it already", to.display());
        }
        self.put_into(&mut Folder(to))
            .with_context(|| format!("failed to write {} of {}", to.display(), self.name))
    }

    fn put_into(&self, sink: &mut impl Sink) -> Result<()> {
        let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", self.layer()?);
        let configuration = serde_json::to_vec(&self.configuration(&layer.digest))?;
        let configuration = Blob::new("application/vnd.oci.image.config.v1+json", configuration);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = Blob::new(
            media_type,
            serde_json::to_vec(&json!({
                "schemaVersion": 2,
                "mediaType": media_type,
                "config": configuration.descriptor(),
                "layers": [layer.descriptor()],
            }))?,
        );
        sink.put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        sink.put("index.json", &serde_json::to_vec(&self.index(&manifest))?)?;
        // What Docker read before it read OCI layouts, and Podman's docker-archive.
        let docker = json!([{
            "Config": configuration.path(),
            "RepoTags": [self.name],
            "Layers": [layer.path()],
        }]);
        sink.put("manifest.json", &serde_json::to_vec(&docker)?)?;
        for blob in [manifest, configuration, layer] {
            sink.put(&blob.path(), &blob.content)?;
        }
        Ok(())
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut descriptor = manifest.descriptor();
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        descriptor["annotations"] = json!({
            // The whole name, which containerd goes by.
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        })
    }

    fn configuration(&self, layer_digest: &str) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "User": USER, "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Tar::new(Vec::new());
        layer.folder("tmp/", 0o1777)?;
        for folder in self.folders() {
            layer.folder(&folder, 0o755)?;
        }
        for (name, content) in &self.files {
            match content {
                Content::Program(source) => {
                    let program = fs::read(source)
                        .with_context(|| format!("failed to read {}", source.display()))?;
                    layer.file(name, 0o755, &program)?;
                }
                Content::Text(text) => layer.file(name, 0o644, text)?,
            }
        }
        layer.end()
    }

    /// Every folder that a file is in, those above first.
    fn folders(&self) -> BTreeSet<String> {
        let names = self.files.iter().map(|(name, _)| name.as_str());
        let ends = names.flat_map(|name| name.match_indices('/').map(|(at, _)| &name[..=at]));
        ends.map(str::to_owned).collect()
    }
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        Self {
            media_type,
            digest: hex(&content),
            content,
        }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": format!("sha256:{}", self.digest),
            "size": self.content.len(),
        })
    }
}

/// Go's and so every registry's name for the machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// SHA-256 in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn output(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn folder_of(test: &str) -> PathBuf {
        let folder = format!("mainstay-image-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn image(folder: &Path) -> Image {
        let program = folder.join("program");
        // Not a whole number of blocks.
        fs::write(&program, vec![7; 1537]).unwrap();
        Image {
            name: "localhost/program:test".to_owned(),
            entrypoint: vec!["/bin/program".to_owned()],
            files: vec![
                ("bin/program".to_owned(), Content::Program(program)),
                ("etc/a/text".to_owned(), Content::Text(b"text".to_vec())),
            ],
        }
    }

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// The blob that a descriptor names, if it has the digest and size that it says.
    fn follow(layout: &Path, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = layout.join("blobs").join(digest.replace(':', "/"));
        let found = output("sha256sum", &[path.to_str().unwrap()]);
        assert_eq!(digest["sha256:".len()..], found[..64]);
        assert_eq!(descriptor["size"], fs::metadata(&path).unwrap().len());
        path
    }

    #[test]
    fn every_part_of_a_layout_has_the_digest_and_size_that_name_it() {
        let folder = folder_of("layout");
        let layout = folder.join("layout");
        image(&folder).write_layout(&layout).unwrap();
        let index = read(&layout.join("index.json"));
        let manifest = read(&follow(&layout, &index["manifests"][0]));
        let layer = follow(&layout, &manifest["layers"][0]);
        let configuration = read(&follow(&layout, &manifest["config"]));
        let named = &configuration["rootfs"]["diff_ids"][0];
        assert_eq!(*named, manifest["layers"][0]["digest"]);

        let names = output("tar", &["-tvf", layer.to_str().unwrap()]);
        assert!(names.contains("drwxrwxrwt 0/0"), "{names}");
        assert!(names.contains("-rwxr-xr-x 0/0            1537"), "{names}");
        assert!(names.contains("-rw-r--r-- 0/0               4"), "{names}");
        for made in ["bin/", "etc/", "etc/a/"] {
            let is_made = |line: &str| line.starts_with("drwxr-xr-x") && line.ends_with(made);
            assert!(names.lines().any(is_made), "{made}: {names}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_archive_is_the_layout_and_a_docker_archive_and_the_same_each_time() {
        let folder = folder_of("archive");
        let (first, second) = (folder.join("first.tar"), folder.join("second.tar"));
        image(&folder).write(&first).unwrap();
        image(&folder).write(&second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());

        let unpacked = folder.to_str().unwrap();
        output("tar", &["-xf", first.to_str().unwrap(), "-C", unpacked]);
        let docker = read(&folder.join("manifest.json"));
        assert_eq!(docker[0]["RepoTags"][0], "localhost/program:test");
        let index = read(&folder.join("index.json"));
        let manifest = read(&follow(&folder, &index["manifests"][0]));
        for (named, meant) in [
            (&docker[0]["Config"], &manifest["config"]),
            (&docker[0]["Layers"][0], &manifest["layers"][0]),
        ] {
            assert_eq!(folder.join(named.as_str().unwrap()), follow(&folder, meant));
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_layout_is_not_written_over_something_else() {
        let folder = folder_of("taken");
        assert!(image(&folder).write_layout(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
