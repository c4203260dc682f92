//! `cargo xtask demo`: the service, the protected API and the demo site, on three origins.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::package;
use crate::project::Project;
use crate::tools::{self, CHROMIUM};

/// The programs that the demo and the browser tests start.
pub(crate) struct Servers {
    service: PathBuf,
    protected_api: PathBuf,
}

impl Servers {
    /// Builds both and learns from cargo where they are.
    pub(crate) fn build(project: &Project) -> Result<Self> {
        let programs = ["--bin", "approov-web-service", "--example", "demo_api", "--features", "approov-verify/tower"];
        let arguments = [&["-p", "approov-web-service", "-p", "approov-verify"], &programs[..]].concat();
        let messages = cargo_build(project, &arguments)?;
        Ok(Self {
            service: executable(&messages, "approov-web-service")?,
            protected_api: executable(&messages, "demo_api")?,
        })
    }

    /// The web protection service.
    pub(crate) fn service(&self) -> &Path {
        &self.service
    }

    /// Tells a Node program where the servers are.
    pub(crate) fn announce_to<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("APPROOV_WEB_SERVICE", &self.service).env("APPROOV_DEMO_API", &self.protected_api)
    }
}

/// Runs `cargo build` and returns its JSON messages.
pub(crate) fn cargo_build(project: &Project, arguments: &[&str]) -> Result<String> {
    let result = project
        .cargo()
        .args(["build", "--message-format=json-render-diagnostics"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo build")?;
    if !result.status.success() {
        bail!("cargo build {} failed ({})", arguments.join(" "), result.status);
    }
    String::from_utf8(result.stdout).context("cargo's messages")
}

/// The executable of a target, from cargo's JSON messages.
pub(crate) fn executable(messages: &str, target: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message.pointer("/target/name").and_then(Value::as_str) == Some(target))
        .find_map(|message| message.get("executable").and_then(Value::as_str).map(PathBuf::from))
        .with_context(|| format!("cargo built no executable {target}"))
}

/// Serves until Ctrl-C. The Node program replaces this process, so that signals reach it alone; it ends its children.
pub(crate) fn serve(project: &Project) -> Result<ExitCode> {
    package::build(project)?;
    let servers = Servers::build(project)?;
    let mut command = Command::new("node");
    command.arg(project.root.join("www-demo/serve.mjs"));
    Err(servers.announce_to(&mut command).exec()).context("starting node")
}

/// Drives the demo once for each check service, with a passing and a failing check.
pub(crate) fn check(project: &Project) -> Result<ExitCode> {
    tools::ensure_engines(&[&CHROMIUM])?;
    tools::ensure_npm_packages(&project.tests())?;
    package::build(project)?;
    let servers = Servers::build(project)?;
    let mut command = Command::new("node");
    command.arg(project.tests().join("demo-check.mjs"));
    Err(servers.announce_to(&mut command).exec()).context("starting node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"demo_api"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"demo_api"},"executable":"/build/demo_api"}"#,
        );
        assert_eq!(executable(messages, "demo_api").unwrap(), PathBuf::from("/build/demo_api"));
    }

    #[test]
    fn a_target_without_an_executable_is_an_error() {
        assert!(executable(r#"{"target":{"name":"demo_api"},"executable":null}"#, "demo_api").is_err());
    }
}
