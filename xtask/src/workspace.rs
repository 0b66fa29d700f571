//! The workspace seen from the outside: its packages and their edges, and the files that belong to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::command;

/// Where the workspace lies and which packages it has.
pub(crate) struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub root: PathBuf,
    /// Where cargo builds; obeys `CARGO_TARGET_DIR`.
    pub target: PathBuf,
    /// The members, by name.
    pub packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Clone)]
pub(crate) struct Package {
    pub name: String,
    /// Names of the packages it depends on, our own and others', of every kind (normal, dev, build).
    pub dependencies: Vec<String>,
    /// Whether it has integration tests of its own (`tests/`).
    pub has_tests_folder: bool,
}

/// One file of the workspace: its path from the root, with `/`, and its text.
pub(crate) struct File {
    pub path: String,
    pub text: String,
}

impl Workspace {
    /// Asks cargo. The root is found from where this program was built, so it works in every folder.
    pub(crate) fn open() -> Result<Self, String> {
        let mut ask = command::cargo();
        ask.args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        let answer = command::read(&mut ask)?;
        let metadata: Value =
            serde_json::from_str(&answer).map_err(|error| format!("cargo metadata: {error}"))?;
        Self::from_metadata(&metadata)
            .ok_or_else(|| "cargo metadata has a shape this program doesn't know".to_owned())
    }

    fn from_metadata(metadata: &Value) -> Option<Self> {
        let mut packages =
            metadata["packages"].as_array()?.iter().map(package).collect::<Option<Vec<_>>>()?;
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Some(Self {
            root: metadata["workspace_root"].as_str()?.into(),
            target: metadata["target_directory"].as_str()?.into(),
            packages,
        })
    }

    /// Every text file that git tracks or would track, in order of path. Files that are no UTF-8 are left out.
    pub(crate) fn files(&self) -> Result<Vec<File>, String> {
        let mut list = Command::new("git");
        list.arg("-C").arg(&self.root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = command::read(&mut list)?;
        let mut paths: Vec<&str> = listed.split('\0').filter(|path| !path.is_empty()).collect();
        paths.sort_unstable();
        paths.dedup();
        let read = |path: &str| {
            // A file that git knows and the folder no longer has is on its way out.
            let bytes = std::fs::read(self.root.join(path)).ok()?;
            String::from_utf8(bytes).ok().map(|text| File { path: path.to_owned(), text })
        };
        Ok(paths.into_iter().filter_map(read).collect())
    }
}

fn package(value: &Value) -> Option<Package> {
    let mut dependencies = Vec::new();
    for dependency in value["dependencies"].as_array()? {
        dependencies.push(dependency["name"].as_str()?.to_owned());
    }
    dependencies.sort();
    dependencies.dedup();
    let is_test = |target: &Value| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    };
    let has_tests_folder = value["targets"].as_array()?.iter().any(is_test);
    Some(Package { name: value["name"].as_str()?.to_owned(), dependencies, has_tests_folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_opens_with_its_packages_and_files() {
        let workspace = Workspace::open().unwrap();
        let xtask = workspace.packages.iter().find(|package| package.name == "xtask").unwrap();
        assert_eq!(xtask.dependencies, ["mio", "serde_json"]);
        let files = workspace.files().unwrap();
        assert!(
            files.iter().any(|file| file.path == "xtask/src/workspace.rs" && file.text.contains("fn open"))
        );
        assert!(files.iter().all(|file| !file.path.starts_with("target/")));
    }

    #[test]
    fn metadata_of_another_shape_is_refused() {
        assert!(Workspace::from_metadata(&serde_json::json!({ "packages": [{}] })).is_none());
    }
}
