//! `cargo xtask test`: every runner of the project, their counts added up to one last line.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::demo::Servers;
use crate::package;
use crate::process::{VirtualDisplay, run_watched};
use crate::project::Project;
use crate::tools::{self, WASM_BINDGEN};

/// A part of the tests that can be asked for by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Format, lints, native tests of the workspace.
    Unit,
    /// The browser edge of the SDK, by wasm-bindgen-test in browsers.
    Web,
    /// The packed package against the real service and the protected API, in browsers.
    E2e,
    /// What is in the package, and what it does in bundlers, runtimes and under policies.
    Package,
    /// Other people's code on the other side: the Node and Python examples of a backend, JOSE libraries that read the service's
    /// tokens, requests that schemathesis generates from the service's description.
    Interop,
}

impl Part {
    const ALL: [Self; 5] = [Self::Unit, Self::Web, Self::E2e, Self::Package, Self::Interop];

    const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Web => "web",
            Self::E2e => "e2e",
            Self::Package => "package",
            Self::Interop => "interop",
        }
    }

    /// The parts of these names, in the order in which they run; all of them for no names.
    pub(crate) fn parse_all(names: &[&str]) -> Result<Vec<Self>> {
        if let Some(unknown) = names.iter().find(|name| Self::ALL.iter().all(|part| part.name() != **name)) {
            bail!("there is no test part {unknown:?}; the parts are unit, web, e2e, package and interop");
        }
        Ok(Self::ALL.into_iter().filter(|part| names.is_empty() || names.contains(&part.name())).collect())
    }
}

/// Runs the parts, each to its end whatever the others did.
pub(crate) fn run(project: &Project, parts: &[Part]) -> Result<ExitCode> {
    install(project, parts)?;
    let mut total = Tally::default();
    for part in parts {
        let begin = Instant::now();
        println!("\n== {} ==", part.name());
        let mut tally = Tally::default();
        if let Err(error) = run_part(project, *part, &mut tally) {
            println!("FAILED: {error:#}");
            tally.failed += 1;
        }
        if tally.passed + tally.failed == 0 {
            println!("FAILED: the part {} ran no test", part.name());
            tally.failed += 1;
        }
        println!("== {}: {tally} in {} s ==", part.name(), begin.elapsed().as_secs());
        total.add(tally);
    }
    println!("\n{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Installs what every part needs.
pub(crate) fn install_everything(project: &Project) -> Result<()> {
    install(project, &Part::ALL)
}

fn install(project: &Project, parts: &[Part]) -> Result<()> {
    for part in parts {
        match part {
            Part::Unit => {
                tools::ensure_rust_components(project)?;
                tools::ensure_wasm_target(project)?;
                tools::ensure_redis()?;
            }
            Part::Web => {
                tools::ensure_wasm_target(project)?;
                tools::ensure_engines(&tools::chosen_engines()?)?;
                tools::ensure_cargo_tools(&[&WASM_BINDGEN])?;
            }
            Part::E2e => {
                tools::ensure_engines(&tools::chosen_engines()?)?;
                package::install_tools(project)?;
                python(project)?;
                tools::ensure_npm_packages(&project.root.join(NODE_EXAMPLE))?;
            }
            Part::Package => {
                tools::ensure_engines(&tools::chosen_engines()?)?;
                package::install_tools(project)?;
            }
            Part::Interop => {
                python(project)?;
                tools::ensure_npm_packages(&project.root.join(NODE_EXAMPLE))?;
                tools::ensure_npm_packages(&project.root.join(SERVICE_INTEROP))?;
            }
        }
    }
    Ok(())
}

fn run_part(project: &Project, part: Part, tally: &mut Tally) -> Result<()> {
    match part {
        Part::Unit => unit(project, tally),
        Part::Web => web(project, tally),
        Part::E2e => {
            ensure_package(project)?;
            let servers = Servers::build(project)?;
            let python = python(project)?;
            node_tests(project, "browser", servers.announce_to(&mut Command::new("node")).env("PYTHON", python), tally)
        }
        Part::Package => {
            ensure_package(project)?;
            // Compiling what would be uploaded is left out: the other parts compile the same files.
            let publish = ["publish", "--workspace", "--exclude", "xtask", "--dry-run", "--no-verify", "--allow-dirty"];
            check(project.cargo().args(publish), tally)?;
            let servers = Servers::build(project)?;
            node_tests(project, "package", servers.announce_to(&mut Command::new("node")), tally)
        }
        Part::Interop => interop(project, tally),
    }
}

fn unit(project: &Project, tally: &mut Tally) -> Result<()> {
    check(project.cargo().args(["fmt", "--all", "--check"]), tally)?;
    let lint = ["clippy", "--all-targets", "--all-features", "--workspace", "--", "-D", "warnings"];
    check(project.cargo().args(lint), tally)?;
    check(project.cargo().arg("clippy").args(BROWSER_EDGE).args(["--lib", "--", "-D", "warnings"]), tally)?;
    runner(project.cargo().args(["test", "--workspace", "--all-features", "--no-fail-fast"]), tally)
}

/// Cargo's arguments for the tests of the browser edge, which exists on WebAssembly only.
const BROWSER_EDGE: &[&str] = &["-p", "approov-web-sdk", "--target", "wasm32-unknown-unknown", "--test", "web*"];

/// Where the browser edge has to work, as wasm-bindgen's test runner names it.
const SCOPES: &[(&str, &str)] = &[
    ("page", "WASM_BINDGEN_USE_BROWSER"),
    ("worker", "WASM_BINDGEN_USE_DEDICATED_WORKER"),
    ("service worker", "WASM_BINDGEN_USE_SERVICE_WORKER"),
];

/// The tests of the browser edge: in each engine, in each scope. They are built like the package, optimised: WebKitGTK's last
/// compiler tier is unsound with unoptimised code of this size (about a third of the runs trap or hang; none without that tier).
fn web(project: &Project, tally: &mut Tally) -> Result<()> {
    let path = tools::path()?;
    for engine in tools::chosen_engines()? {
        let display = if engine.needs_display { VirtualDisplay::start_if_needed()? } else { None };
        let (variable, driver) = engine.driver_for_wasm_bindgen()?;
        for (scope, chosen) in SCOPES {
            println!("-- {}, {scope} --", engine.name);
            let mut command = project.cargo();
            command.args(["test", "--release"]).args(BROWSER_EDGE).arg("--no-fail-fast");
            for (_, other) in SCOPES {
                command.env_remove(other);
            }
            for other in ["CHROMEDRIVER", "GECKODRIVER", "SAFARIDRIVER"] {
                command.env_remove(other);
            }
            command.env("PATH", &path).env("WASM_BINDGEN_TEST_TIMEOUT", "600").env(variable, &driver).env(chosen, "1");
            if let Some(display) = &display {
                command.env("DISPLAY", display.name());
            }
            runner(&mut command, tally)?;
        }
    }
    Ok(())
}

/// The example of a backend in Node, in Python, and the tests that read the service's tokens with JOSE libraries.
const NODE_EXAMPLE: &str = "verify/examples/node";
const PYTHON_EXAMPLE: &str = "verify/examples/python";
const SERVICE_INTEROP: &str = "service/interop";

fn python(project: &Project) -> Result<PathBuf> {
    let requirements = |directory| project.root.join(directory).join("requirements.txt");
    tools::ensure_python_packages(project, &[requirements(PYTHON_EXAMPLE), requirements(SERVICE_INTEROP)])
}

fn interop(project: &Project, tally: &mut Tally) -> Result<()> {
    let servers = Servers::build(project)?;
    let python = python(project)?;
    let node_test = |directory: &str| {
        let mut command = Command::new("node");
        command.args(["--test", "--test-reporter=spec"]).current_dir(project.root.join(directory));
        command
    };
    runner(&mut node_test(NODE_EXAMPLE), tally)?;
    runner(servers.announce_to(&mut node_test(SERVICE_INTEROP)).env("PYTHON", &python), tally)?;
    let mut unit_tests = Command::new(&python);
    unit_tests.args(["-m", "pytest", "-q"]).current_dir(project.root.join(PYTHON_EXAMPLE));
    runner(&mut unit_tests, tally)?;
    let mut generated = Command::new(&python);
    generated.arg("schemathesis_run.py").arg(servers.service()).current_dir(project.root.join(SERVICE_INTEROP));
    check(&mut generated, tally)
}

/// The test files of one directory of `tests/e2e`, by Node's test runner.
fn node_tests(project: &Project, directory: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut files = test_files(&project.tests().join(directory))?;
    files.sort();
    command
        .args(["--test", "--test-reporter=spec", "--test-concurrency=2"])
        .args(files)
        .current_dir(project.tests())
        .env("APPROOV_PACKAGE", project.dist())
        .env("APPROOV_TARBALL", project.tarball());
    let engines: Vec<&str> = tools::chosen_engines()?.iter().map(|engine| engine.name).collect();
    command.env("APPROOV_ENGINES", engines.join(",")).env("PATH", tools::path()?);
    runner(command, tally)
}

fn test_files(directory: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        let name = path.to_string_lossy().into_owned();
        if name.ends_with(".test.mjs") {
            files.push(name);
        }
    }
    Ok(files)
}

/// Builds the package, once in a run; with `APPROOV_KEEP_PACKAGE` set, the one that is there serves.
fn ensure_package(project: &Project) -> Result<()> {
    static BUILT: AtomicBool = AtomicBool::new(false);
    if BUILT.load(Ordering::Relaxed) {
        return Ok(());
    }
    if env::var_os("APPROOV_KEEP_PACKAGE").is_some() && project.tarball().is_file() {
        println!("APPROOV_KEEP_PACKAGE is set: testing {} as it is", project.tarball().display());
        return Ok(());
    }
    package::build(project)?;
    BUILT.store(true, Ordering::Relaxed);
    Ok(())
}

/// A command that is one test: it holds or it does not.
fn check(command: &mut Command, tally: &mut Tally) -> Result<()> {
    if run_watched(command, |_| {})?.success() {
        tally.passed += 1;
    } else {
        println!("FAILED: the check above");
        tally.failed += 1;
    }
    Ok(())
}

/// A command that runs tests and says how many. A failing exit status counts as a failure even when no test failed.
fn runner(command: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut counted = Tally::default();
    let status = run_watched(command, |line| counted.add(Tally::read(line)))?;
    if !status.success() && counted.failed == 0 {
        println!("FAILED: the runner above ended with {status}");
        counted.failed += 1;
    }
    if status.success() && counted.passed == 0 {
        println!("FAILED: the runner above ran no test");
        counted.failed += 1;
    }
    tally.add(counted);
    Ok(())
}

/// How many tests passed and failed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Reads a summary line of a test runner; any other line counts nothing.
    fn read(line: &str) -> Self {
        // cargo test and wasm-bindgen-test: "test result: ok. 3 passed; 1 failed; 0 ignored; …"
        if let Some(summary) = line.trim_start().strip_prefix("test result:") {
            let count = |word: &str| {
                summary
                    .split([';', '.'])
                    .filter_map(|part| part.trim().strip_suffix(word))
                    .find_map(|number| number.trim().parse().ok())
                    .unwrap_or(0)
            };
            return Self { passed: count("passed"), failed: count("failed") };
        }
        // pytest: "2 passed, 130 subtests passed in 0.41s", "1 failed, 2 passed in 0.40s"
        if let Some((counts, _)) = line.trim_matches(['=', ' ']).rsplit_once(" in ") {
            let count = |word: &str| {
                counts.split(", ").filter_map(|part| part.strip_suffix(word)?.trim().parse::<u64>().ok()).sum::<u64>()
            };
            if counts.split(", ").all(|part| part.starts_with(|first: char| first.is_ascii_digit())) {
                return Self {
                    passed: count(" passed"),
                    failed: count(" failed") + count(" errors") + count(" error"),
                };
            }
        }
        // node --test: "ℹ pass 3", "ℹ fail 1", "ℹ cancelled 0"
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next().and_then(|number| number.parse().ok()), words.next()) {
            (Some("ℹ"), Some("pass"), Some(passed), None) => Self { passed, failed: 0 },
            (Some("ℹ"), Some("fail" | "cancelled"), Some(failed), None) => Self { passed: 0, failed },
            _ => Self::default(),
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64) -> Tally {
        Tally { passed, failed }
    }

    #[test]
    fn the_summary_of_cargo_test_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(Tally::read(line), tally(12, 3));
    }

    #[test]
    fn the_summary_of_nodes_test_runner_is_read() {
        assert_eq!(Tally::read("ℹ pass 7"), tally(7, 0));
        assert_eq!(Tally::read("ℹ fail 2"), tally(0, 2));
        assert_eq!(Tally::read("ℹ cancelled 1"), tally(0, 1));
    }

    #[test]
    fn the_summary_of_pytest_is_read() {
        assert_eq!(Tally::read("2 passed, 130 subtests passed in 0.41s"), tally(2, 0));
        assert_eq!(Tally::read("==== 1 failed, 2 passed, 1 error in 0.40s ===="), tally(2, 2));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in
            ["2 files changed in 3 s", "", "ℹ tests 9", "ℹ pass the salt 3", "test passes ... ok", "3 passed; 1 failed"]
        {
            assert_eq!(Tally::read(line), tally(0, 0), "{line}");
        }
    }

    #[test]
    fn no_names_mean_all_parts_and_order_does_not_matter() {
        assert_eq!(Part::parse_all(&[]).unwrap(), Part::ALL);
        assert_eq!(Part::parse_all(&["package", "unit"]).unwrap(), [Part::Unit, Part::Package]);
    }

    #[test]
    fn an_unknown_part_is_refused() {
        assert!(Part::parse_all(&["units"]).is_err());
    }
}
