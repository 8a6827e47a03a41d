//! A directory with manifests and agents' code, removed when dropped.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The directory, with a state directory beside the manifests.
pub struct Fleet {
    folder: TempDir,
    mark: String,
}

impl Fleet {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mainstay-test-")
            .tempdir()
            .unwrap();
        let mark = folder
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        fs::create_dir(folder.path().join("fleet")).unwrap();
        Self { folder, mark }
    }

    /// Writes a file of the fleet; `{{mark}}` in it becomes this fleet's mark.
    #[must_use]
    pub fn with(self, name: &str, text: &str) -> Self {
        self.write(name, text);
        self
    }

    /// Writes a file of the fleet; `{{mark}}` in it becomes this fleet's mark.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.manifests().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Beside and renamed: a half-written manifest would be seen as a broken save.
        let beside = self.folder.path().join(format!("{}.new", self.mark));
        fs::write(&beside, text.replace("{{mark}}", &self.mark)).unwrap();
        fs::rename(&beside, &path).unwrap();
    }

    /// What `mainstay up` is pointed at.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("fleet")
    }

    /// `--state`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The whole of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The value of `TESTKIT_FLEET` in its agents.
    #[must_use]
    pub fn mark(&self) -> &str {
        &self.mark
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new()
    }
}
