//! Where things are: the workspace, its build directory, and what its packages declare.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::output;

/// The paths and facts that every task needs.
pub(crate) struct Project {
    /// The workspace root.
    pub(crate) root: PathBuf,
    /// Cargo's build directory (`target/`, unless configured otherwise).
    pub(crate) target: PathBuf,
    /// The packages of the workspace.
    pub(crate) packages: Vec<Package>,
    /// Version of the SDK crate, and so of the npm package.
    pub(crate) version: String,
}

/// A package of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    version: String,
    /// The oldest release of Rust that it declares to support.
    pub(crate) rust_version: String,
}

impl Project {
    /// Asks cargo, so that `CARGO_TARGET_DIR` and cargo's configuration count.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let text = output(
            Command::new(cargo())
                .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
                .arg(manifest),
        )?;
        Self::read(&serde_json::from_str(&text).context("reading cargo metadata")?)
    }

    fn read(metadata: &Value) -> Result<Self> {
        let path = |key: &str| Ok::<_, anyhow::Error>(PathBuf::from(text_of(metadata, key)?));
        let packages = metadata.get("packages").and_then(Value::as_array).context("cargo metadata has no packages")?;
        let packages = packages.iter().map(Package::read).collect::<Result<Vec<_>>>()?;
        let sdk = packages.iter().find(|package| package.name == "approov-web-sdk");
        let version = sdk.context("cargo metadata does not list the package approov-web-sdk")?.version.clone();
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, packages, version })
    }

    /// The directory of the browser tests.
    pub(crate) fn tests(&self) -> PathBuf {
        self.root.join("tests/e2e")
    }

    /// The assembled npm package.
    pub(crate) fn dist(&self) -> PathBuf {
        self.root.join("dist")
    }

    /// The npm tarball that [`crate::package::build`] writes.
    pub(crate) fn tarball(&self) -> PathBuf {
        self.dist().join(format!("approov-web-sdk-{}.tgz", self.version))
    }

    /// The directory of the programs from npm that build the package and check the JavaScript.
    pub(crate) fn npm_tools(&self) -> PathBuf {
        self.root.join("xtask")
    }

    /// One of those programs.
    pub(crate) fn npm_program(&self, name: &str) -> PathBuf {
        self.npm_tools().join("node_modules/.bin").join(name)
    }

    /// `cargo`, running in the workspace root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root);
        command
    }
}

impl Package {
    fn read(metadata: &Value) -> Result<Self> {
        let text = |key| text_of(metadata, key).map(str::to_owned);
        Ok(Self { name: text("name")?, version: text("version")?, rust_version: text("rust_version")? })
    }
}

fn text_of<'a>(metadata: &'a Value, key: &str) -> Result<&'a str> {
    metadata.get(key).and_then(Value::as_str).with_context(|| format!("cargo metadata has no {key}"))
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_sdk_gives_the_npm_package_its_version() {
        let package = |name: &str, version: &str| json!({"name": name, "version": version, "rust_version": "1.88"});
        let metadata = json!({
            "workspace_root": "/w", "target_directory": "/t",
            "packages": [package("xtask", "0.0.1"), package("approov-web-sdk", "1.2.3")],
        });
        let project = Project::read(&metadata).unwrap();
        assert_eq!(project.tarball(), PathBuf::from("/w/dist/approov-web-sdk-1.2.3.tgz"));
    }

    /// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
    fn expanded(path: &str) -> Vec<String> {
        let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
        let (choices, after) = rest.split_once('}').unwrap();
        choices.split(',').map(|choice| format!("{before}{choice}{after}")).collect()
    }

    /// The paths from the root that a document names between backticks. A folder alone, as in `harness/`, is named from elsewhere.
    fn named_paths(document: &str) -> Vec<String> {
        let is_path = |text: &&str| {
            text.trim_end_matches('/').contains('/')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./{},".contains(c))
                && !["/", "application/"].iter().any(|other| text.starts_with(other))
        };
        document.split('`').skip(1).step_by(2).filter(is_path).flat_map(expanded).collect()
    }

    #[test]
    fn the_documents_about_the_code_name_only_paths_that_there_are() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut documents = vec![root.join("ARCHITECTURE.md"), root.join("CONTRIBUTING.md")];
        documents.extend(std::fs::read_dir(root.join("docs/decisions")).unwrap().map(|entry| entry.unwrap().path()));
        let (mut paths, mut missing) = (0, Vec::new());
        for document in documents {
            let text = std::fs::read_to_string(&document).unwrap();
            // Blocks of code left out, every second piece is between backticks.
            let prose: String = text.split("```").step_by(2).collect();
            for path in named_paths(&prose) {
                let is_built = ["dist/", "target/"].iter().any(|directory| path.starts_with(directory));
                if !is_built && !root.join(&path).exists() {
                    missing.push(format!("{} in {}", path, document.file_name().unwrap().display()));
                }
                paths += 1;
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(paths > 50, "only {paths} paths were found");
    }

    #[test]
    fn a_package_that_declares_no_rust_version_is_an_error() {
        let packages = json!([{"name": "approov-web-sdk", "version": "1.2.3", "rust_version": null}]);
        assert!(
            Project::read(&json!({"workspace_root": "/w", "target_directory": "/t", "packages": packages})).is_err()
        );
    }
}
