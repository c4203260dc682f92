//! `cargo xtask bench`: this project beside its peers, measured in one run. Tables for people, JSON under `target/bench/`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::demo::{Servers, build_example};
use crate::package;
use crate::process::run;
use crate::project::Project;
use crate::tools;

/// A part of the benchmarks that can be asked for by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// What a page loads, beside comparable packages.
    Size,
    /// Proofs, keys, tokens in each engine, beside npm packages in the same page.
    Sdk,
    /// Refresh requests per second, beside bare signature verification on the same core.
    Service,
    /// One full verification of token and proof, beside the bare signature check.
    Verify,
}

impl Part {
    const ALL: [Self; 4] = [Self::Size, Self::Sdk, Self::Service, Self::Verify];

    const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Sdk => "sdk",
            Self::Service => "service",
            Self::Verify => "verify",
        }
    }

    /// The parts of these names; all of them for no names.
    pub(crate) fn parse_all(names: &[&str]) -> Result<Vec<Self>> {
        if let Some(unknown) = names.iter().find(|name| Self::ALL.iter().all(|part| part.name() != **name)) {
            bail!("there is no benchmark {unknown:?}; there are size, sdk, service and verify");
        }
        Ok(Self::ALL.into_iter().filter(|part| names.is_empty() || names.contains(&part.name())).collect())
    }
}

/// Measures; fails only when something cannot be measured, not when a budget does not hold.
pub(crate) fn measure(project: &Project, parts: &[Part]) -> Result<ExitCode> {
    for part in parts {
        println!("\n== {} ==", part.name());
        match part {
            Part::Size => {
                package::build(project)?;
                tools::ensure_npm_packages(&peers(project))?;
                run(&mut node(project, "size.mjs"))?;
            }
            Part::Sdk => {
                tools::ensure_engines(&tools::chosen_engines()?)?;
                package::build(project)?;
                tools::ensure_npm_packages(&peers(project))?;
                let engines: Vec<&str> = tools::chosen_engines()?.iter().map(|engine| engine.name).collect();
                let servers = Servers::build_optimised(project)?;
                run(servers
                    .announce_to(&mut node(project, "sdk.mjs"))
                    .env("PATH", tools::path()?)
                    .env("APPROOV_ENGINES", engines.join(",")))?;
            }
            Part::Service => {
                let servers = Servers::build_optimised(project)?;
                let load = build_example(project, "approov-web-service", "load")?;
                run(servers.announce_to(&mut node(project, "service.mjs")).env("APPROOV_LOAD", load))?;
            }
            Part::Verify => {
                run(project.cargo().args(["bench", "-p", "approov-verify", "--bench", "verify"]))?;
                run(node(project, "verify.mjs").env("APPROOV_CRITERION", project.target.join("criterion")))?;
            }
        }
    }
    println!("\nraw numbers: {}", results(project).display());
    Ok(ExitCode::SUCCESS)
}

/// Where the packages live that are measured beside ours.
fn peers(project: &Project) -> PathBuf {
    project.root.join("tests/bench")
}

fn results(project: &Project) -> PathBuf {
    project.target.join("bench")
}

fn node(project: &Project, script: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg(peers(project).join(script))
        .env("APPROOV_PACKAGE", project.dist())
        .env("APPROOV_TARBALL", project.tarball())
        .env("APPROOV_BENCH_RESULTS", results(project));
    command
}
