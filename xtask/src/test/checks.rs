//! What holds of the sources without running them: format, lints, types, documentation, features, dependencies.

use std::env;
use std::process::Command;

use anyhow::Result;

use super::BROWSER_EDGE;
use crate::project::Project;
use crate::tools::{self, CARGO_DENY, CARGO_HACK, RUST};

/// One check: a command that succeeds or does not.
pub(super) struct Check {
    /// For people, and for `cargo xtask test unit NAME`.
    pub(super) name: String,
    pub(super) command: Command,
}

const WASM: &str = "wasm32-unknown-unknown";

/// Installs what the checks need.
pub(super) fn install(project: &Project) -> Result<()> {
    tools::ensure_rust_components(project)?;
    tools::ensure_wasm_target(project)?;
    tools::ensure_cargo_tools(&[&CARGO_HACK, &CARGO_DENY])?;
    for (_, release) in older_releases(project) {
        tools::ensure_rust_release(project, release)?;
    }
    // The types of what the JavaScript imports are in its packages.
    let directories = [project.npm_tools(), project.tests(), project.root.join(super::SERVICE_INTEROP)];
    directories.iter().try_for_each(|directory| tools::ensure_npm_packages(directory))
}

/// All of them, in the order in which they run: the quick ones first.
pub(super) fn all(project: &Project) -> Result<Vec<Check>> {
    let cargo = |name: &str, arguments: &[&str]| {
        let mut command = project.cargo();
        command.args(arguments);
        Check { name: name.to_owned(), command }
    };
    let npm = |name: &str, program, arguments: &[&str]| {
        let mut command = Command::new(project.npm_program(program));
        command.args(arguments).current_dir(&project.root);
        Check { name: name.to_owned(), command }
    };
    let mut checks = vec![
        cargo("format of Rust (rustfmt)", &["fmt", "--all", "--check"]),
        npm("format of JavaScript (prettier)", "prettier", &["--check", "--log-level=warn", "."]),
        npm("types of JavaScript (tsc)", "tsc", &["--project", "tsconfig.json"]),
    ];
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml", "verify/fuzz/Cargo.toml", "verify/python/Cargo.toml"] {
        let locked = ["tree", "--locked", "--depth", "0", "--edges", "normal", "--manifest-path", manifest];
        checks.push(cargo(&format!("lock file of {manifest}"), &locked));
    }

    let deny = |name: &str, what: &[&str]| -> Result<Check> {
        let mut command = Command::new(CARGO_DENY.program()?);
        command.current_dir(&project.root).args(["--workspace", "check", "-D", "warnings"]).args(what);
        Ok(Check { name: name.to_owned(), command })
    };
    checks.push(deny("licences, sources and bans (cargo-deny)", &["licenses", "sources", "bans"])?);
    // Off by default: it fetches a database from github.com, and fails on a day when nothing here has changed.
    if env::var_os("APPROOV_ADVISORIES").is_some() {
        checks.push(deny("advisories (cargo-deny)", &["advisories"])?);
    }

    let everything = ["clippy", "--all-targets", "--all-features", "--workspace", "--", "-D", "warnings"];
    checks.push(cargo("lints (clippy)", &everything));
    let edge = [&["clippy"], BROWSER_EDGE, &["--lib", "--", "-D", "warnings"]].concat();
    checks.push(cargo("lints of the browser edge (clippy)", &edge));
    let engine = ["clippy", "-p", "approov-verify-npm", "--target", WASM, "--", "-D", "warnings"];
    checks.push(cargo("lints of the verifier for npm (clippy)", &engine));

    for (name, crates) in [
        (
            "every feature alone (cargo-hack)",
            &["--workspace", "--exclude", "xtask", "--exclude", "approov-verify", "--exclude", "approov-verify-face"][..],
        ),
        // It needs one of its two libraries for cryptography.
        (
            "every feature of verify alone (cargo-hack)",
            &["-p", "approov-verify", "-p", "approov-verify-face", "--features", "rustcrypto"],
        ),
        ("every feature alone, in the browser (cargo-hack)", &["-p", "approov-web-sdk", "--target", WASM]),
    ] {
        let mut hack = Command::new(CARGO_HACK.program()?);
        hack.current_dir(&project.root).args(["hack", "clippy", "--each-feature"]).args(crates);
        hack.args(["--quiet", "--", "-D", "warnings"]);
        checks.push(Check { name: name.to_owned(), command: hack });
    }

    for (name, crates) in [
        ("documentation (rustdoc)", &["--workspace", "--all-features"][..]),
        ("documentation of the browser edge (rustdoc)", &["-p", "approov-web-sdk", "--target", WASM]),
    ] {
        let mut check = cargo(name, &["doc", "--no-deps", "--document-private-items", "--quiet"]);
        check.command.args(crates).env("RUSTDOCFLAGS", "-D warnings");
        checks.push(check);
    }

    for (package, release) in older_releases(project) {
        let mut command = Command::new("rustup");
        command.current_dir(&project.root).args(["run", release, "cargo", "check", "--quiet"]);
        command.args(["--all-features", "--package", package]);
        checks.push(Check { name: format!("{package} with Rust {release}, the oldest that it supports"), command });
    }
    Ok(checks)
}

/// The packages that support a Rust older than the toolchain, which checks the others already, and the oldest that each supports.
fn older_releases(project: &Project) -> impl Iterator<Item = (&str, &str)> {
    let supported = project.packages.iter().map(|package| (package.name.as_str(), package.rust_version.as_str()));
    supported.filter(|(_, release)| !is_of_release(RUST, release))
}

/// Whether `1.95.0` is of the release `1.95`.
fn is_of_release(version: &str, release: &str) -> bool {
    version.strip_prefix(release).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_of_its_release_and_of_no_other() {
        assert!(is_of_release("1.95.0", "1.95") && is_of_release("1.95.0", "1.95.0"));
        assert!(!is_of_release("1.95.0", "1.9") && !is_of_release("1.95.0", "1.88"));
    }
}
