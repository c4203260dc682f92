//! `cargo xtask`: the project's tasks. Run it without arguments for the list.
//!
//! Dependencies between the rooms point one way, from the top of this list to its end:
//!
//! | room | concept |
//! |---|---|
//! | `test` | every test runner, and the checks of the sources |
//! | `bench` | measurements next to peers, budgets, README's section |
//! | `demo` | the servers of the demo, which the tests use, too |
//! | `package` | from the crate to `dist/` and the npm tarball |
//! | `tools` | what has to be installed, at which version |
//! | `project` | paths and versions |
//! | `process` | running programs |

mod bench;
mod demo;
mod package;
mod process;
mod project;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::project::Project;

const USAGE: &str = "\
cargo xtask <command>

  package               build dist/ (approov.js in one file, the split build, types, README) and the npm tarball, and
                        dist-verify/ (the verifier's npm tarball and its Python wheel)
  demo [--check]        start service, protected API and demo site until Ctrl-C; --check drives the demo once in a
                        headless browser, prints what the API verified and exits
  test [PART]...        run the tests; parts: unit, attacks, web, e2e, package, interop (all of them by default)
  test PART NAME        only those tests of the part whose name contains NAME, in upper or lower case
  bench [PART]...       measure this project next to its peers; parts: sdk, size, service, attacks, verify (all of them)
        --rounds N      rounds in browsers (default 9)
        --requests N    refresh requests in each round of the service part (default 60000)
        --write-readme  also write README's section on performance from this run
  setup                 only install what the commands above need and this machine lacks

Missing tools are installed on the way, or the command to install them is printed.";

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = given.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode> {
    match arguments {
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        ["package"] => {
            let project = Project::locate()?;
            package::build(&project)?;
            package::verify::build(&project)?;
            Ok(ExitCode::SUCCESS)
        }
        ["demo"] => demo::serve(&Project::locate()?),
        ["demo", "--check"] => demo::check(&Project::locate()?),
        ["test", arguments @ ..] => test::run(&Project::locate()?, &test::Selection::parse(arguments)?),
        ["bench", arguments @ ..] => {
            let options = bench::Options::parse(arguments)?;
            bench::run_parts(&Project::locate()?, &options)
        }
        ["setup"] => {
            let project = Project::locate()?;
            test::install_everything(&project)?;
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("`cargo xtask {}` is not a command\n\n{USAGE}", arguments.join(" ")),
    }
}
