//! A container image made without a container engine: a docker-archive with one layer, which holds
//! a few files (mostly one static binary) and `/tmp`. containerd, Docker and Podman import it.
//!
//! The same files make the same bytes: times are zero, owners are root, names are in their order.
//! It must not know what the image is for; whoever builds one says what's in it and what it runs.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Who runs in the image where the pod doesn't say: nobody in particular, and not root.
const USER: &str = "65532:65532";

/// What an image is made of.
pub struct Image {
    /// With its tag, `localhost/probe:1`.
    pub name: String,
    /// The command and its first arguments.
    pub entrypoint: Vec<String>,
    /// Where each file lies in the image, without the leading slash, and where it comes from.
    pub files: Vec<(String, PathBuf)>,
}

impl Image {
    /// Writes the archive; a half-written one never has the final name.
    pub fn write(&self, to: &Path) -> Result<()> {
        let half = to.with_extension("half");
        self.write_archive(&half)
            .with_context(|| format!("failed to write the image {}", self.name))?;
        fs::rename(&half, to).with_context(|| format!("failed to rename to {}", to.display()))
    }

    fn write_archive(&self, to: &Path) -> Result<()> {
        let layer = self.layer()?;
        let layer_digest = hex(&layer);
        let configuration = serde_json::to_vec(&self.configuration(&layer_digest))?;
        let configuration_name = format!("{}.json", hex(&configuration));
        let layer_name = format!("{layer_digest}.tar");
        let manifest = serde_json::to_vec(&json!([{
            "Config": configuration_name,
            "RepoTags": [self.name],
            "Layers": [layer_name],
        }]))?;
        let mut archive = Tar::new(BufWriter::new(File::create(to)?));
        archive.file("manifest.json", 0o644, &manifest)?;
        archive.file(&configuration_name, 0o644, &configuration)?;
        archive.file(&layer_name, 0o644, &layer)?;
        archive.end()?.flush()?;
        Ok(())
    }

    fn configuration(&self, layer_digest: &str) -> serde_json::Value {
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
        for (name, source) in &self.files {
            let content =
                fs::read(source).with_context(|| format!("failed to read {}", source.display()))?;
            layer.file(name, 0o755, &content)?;
        }
        layer.end()
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

const BLOCK: usize = 512;

/// A ustar archive, as POSIX.1-1988 describes it, of files and folders with short names.
struct Tar<W> {
    to: W,
}

impl<W: Write> Tar<W> {
    fn new(to: W) -> Self {
        Self { to }
    }

    fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        self.header(name, mode, 0, b'5')
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.header(name, mode, content.len(), b'0')?;
        self.to.write_all(content)?;
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        self.to.write_all(&[0; BLOCK][..padding])?;
        Ok(())
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: u8) -> Result<()> {
        if name.len() > 100 || size > 0o77_777_777_777 {
            bail!("{name} has too long a name or is too large for a tar header");
        }
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, &format!("{:07o}", 0));
        put(116, &format!("{:07o}", 0));
        put(124, &format!("{size:011o}"));
        put(136, &format!("{:011o}", 0));
        // The checksum counts itself as eight spaces.
        put(148, "        ");
        put(257, "ustar\0");
        put(263, "00");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.to.write_all(&header)?;
        Ok(())
    }

    /// Two empty blocks end an archive.
    fn end(mut self) -> Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }
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

    #[test]
    fn an_image_is_a_tar_whose_manifest_names_a_layer_with_its_own_digest() {
        let folder = std::env::temp_dir().join(format!("mainstay-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join("program");
        // Not a whole number of blocks.
        fs::write(&program, vec![7; 3 * BLOCK + 1]).unwrap();
        let image = Image {
            name: "localhost/program:test".to_owned(),
            entrypoint: vec!["/program".to_owned()],
            files: vec![("program".to_owned(), program)],
        };
        let (first, second) = (folder.join("first.tar"), folder.join("second.tar"));
        image.write(&first).unwrap();
        image.write(&second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());

        let archive = first.to_str().unwrap();
        output("tar", &["-xf", archive, "-C", folder.to_str().unwrap()]);
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "localhost/program:test");
        let layer = folder.join(manifest[0]["Layers"][0].as_str().unwrap());
        let digest = output("sha256sum", &[layer.to_str().unwrap()]);
        let digest = digest.split_whitespace().next().unwrap();
        assert_eq!(layer.file_stem().unwrap(), digest);

        let configuration = folder.join(manifest[0]["Config"].as_str().unwrap());
        let configuration = fs::read(configuration).unwrap();
        let configuration: serde_json::Value = serde_json::from_slice(&configuration).unwrap();
        let named = &configuration["rootfs"]["diff_ids"][0];
        assert_eq!(*named, format!("sha256:{digest}"));
        let names = output("tar", &["-tvf", layer.to_str().unwrap()]);
        assert!(names.contains("drwxrwxrwt 0/0"), "{names}");
        assert!(names.contains("-rwxr-xr-x 0/0            1537"), "{names}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
