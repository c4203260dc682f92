//! Where things are: the workspace, its build directory, and the version all packages share.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::output;

/// The places and facts that every task needs.
pub(crate) struct Project {
    /// The workspace root.
    pub(crate) root: PathBuf,
    /// Cargo's build directory (`target/`, unless configured otherwise).
    pub(crate) target: PathBuf,
    /// Version of the SDK crate, and so of the npm package.
    pub(crate) version: String,
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
        let metadata: Value = serde_json::from_str(&text).context("reading cargo metadata")?;
        let place = |key: &str| -> Result<PathBuf> {
            let value = metadata.get(key).and_then(Value::as_str);
            Ok(PathBuf::from(value.with_context(|| format!("cargo metadata has no {key}"))?))
        };
        let version = metadata
            .get("packages")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|package| package.get("name").and_then(Value::as_str) == Some("approov-web-sdk"))
            .and_then(|package| package.get("version").and_then(Value::as_str))
            .context("cargo metadata does not list the package approov-web-sdk")?
            .to_owned();
        Ok(Self { root: place("workspace_root")?, target: place("target_directory")?, version })
    }

    /// The directory of the browser tests, which is also where the npm packages live.
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

    /// A program that an npm package of the project brought.
    pub(crate) fn npm_program(&self, name: &str) -> PathBuf {
        self.tests().join("node_modules/.bin").join(name)
    }

    /// `cargo`, running in the workspace root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root);
        command
    }
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
