//! `cargo xtask bench`: this project and its peers, measured in one run.
//!
//! Each part leaves its rounds as JSON in `target/bench/`; the tables, the chart and the README's section are made of them.

mod budget;
mod chart;
mod machine;
mod report;
mod series;
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::demo::executable;
use crate::package;
use crate::process::{VirtualDisplay, output, run};
use crate::project::Project;
use crate::test;
use crate::tools;
use machine::Machine;
use report::Table;
use series::Series;

/// A part of the measurements that can be requested by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// The SDK next to its peers, in browsers.
    Sdk,
    /// Sizes of the package's entries next to the peers'.
    Size,
    /// The service's throughput next to bare signature verification.
    Service,
    /// How long an honest client waits while one address floods, next to a quiet service.
    Attacks,
    /// One verification in a backend next to bare signature verification.
    Verify,
}

impl Part {
    const ALL: [Self; 5] = [Self::Sdk, Self::Size, Self::Service, Self::Attacks, Self::Verify];

    const fn name(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Size => "size",
            Self::Service => "service",
            Self::Attacks => "attacks",
            Self::Verify => "verify",
        }
    }
}

/// What to measure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    parts: Vec<Part>,
    /// Rounds in browsers.
    rounds: u32,
    /// Refresh requests to the service, in each of its rounds.
    requests: u32,
    write_readme: bool,
}

/// Who waits in the measurements under attack: the same honest client, before each flood and while it goes on.
const QUIET: &str = "honest p99, quiet";
const FLOODED: &str = "honest p99, flooded";

/// Rounds of the native parts.
const NATIVE_ROUNDS: usize = 3;

impl Options {
    /// Reads the arguments after `bench`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self { parts: Vec::new(), rounds: 9, requests: 60_000, write_readme: false };
        let mut arguments = arguments.iter();
        while let Some(&word) = arguments.next() {
            let mut number = || -> Result<u32> {
                let value = arguments.next().and_then(|value| value.parse().ok()).filter(|value| *value > 0);
                value.with_context(|| format!("{word} needs a whole number above 0"))
            };
            match word {
                "--rounds" => options.rounds = number()?,
                "--requests" => options.requests = number()?,
                "--write-readme" => options.write_readme = true,
                name => match Part::ALL.into_iter().find(|part| part.name() == name) {
                    Some(part) => options.parts.push(part),
                    None => {
                        bail!("`bench` does not know {name:?}; its parts are sdk, size, service, attacks and verify")
                    }
                },
            }
        }
        if options.parts.is_empty() {
            options.parts = Part::ALL.to_vec();
        }
        ensure!(
            options.is_whole() || !options.write_readme,
            "--write-readme needs all parts in one run: name none of them"
        );
        Ok(options)
    }

    fn is_whole(&self) -> bool {
        Part::ALL.iter().all(|part| self.includes(*part))
    }

    fn includes(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// Measures the parts and shows what came of it.
pub(crate) fn run_parts(project: &Project, options: &Options) -> Result<ExitCode> {
    // Whatever is compiled or installed comes first, so that nothing of it runs during a measurement.
    if options.includes(Part::Sdk) || options.includes(Part::Size) {
        package::build(project)?;
        install_peers(project)?;
    }
    if options.includes(Part::Sdk) {
        tools::ensure_npm_packages(&project.tests())?;
        tools::ensure_engines(&tools::chosen_engines()?)?;
    }
    let native = options.includes(Part::Sdk) || options.includes(Part::Service);
    let programs = native.then(|| Programs::build(project)).transpose()?;
    if options.includes(Part::Attacks) {
        run(test::attacks(project).arg("--list").stdout(Stdio::null()))?;
    }
    if options.includes(Part::Verify) {
        run(project.cargo().args(["bench", "--no-run", "-p", "approov-verify", "--bench", "verify"]))?;
        test::verify_packages(project)?;
    }

    let directory = project.target.join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let mut machine = Machine::describe()?;
    let mut all = Vec::new();
    for part in &options.parts {
        println!("\n== {} ==", part.name());
        let file = directory.join(format!("{}.json", part.name()));
        let mut result = match part {
            Part::Sdk => sdk(project, programs.as_ref().context("the service was not built")?, options, &file)?,
            Part::Size => size(project, &file)?,
            Part::Service => service(programs.as_ref().context("the service was not built")?, options)?,
            Part::Attacks => attacks(project, &directory)?,
            Part::Verify => verify(project, &directory)?,
        };
        if let Some(browsers) = result.get("engines").and_then(Value::as_object) {
            machine.browsers = browsers.values().filter_map(Value::as_str).map(str::to_owned).collect();
        }
        all.extend(Series::read_all(&result)?);
        if let Some(members) = result.as_object_mut() {
            members.insert("machine".to_owned(), machine.to_json());
        }
        fs::write(&file, format!("{result:#}\n")).with_context(|| format!("writing {}", file.display()))?;
    }

    println!("\n{machine}\n");
    for table in
        [Table::subjects(&all), Table::sizes(&all), Table::native(&all), Table::budgets(&all, options.is_whole())]
    {
        if !table.is_empty() {
            println!("{}", table.to_text());
        }
    }
    let (holding, measured) = report::count_held(&all);
    println!("{holding} of {measured} budgets hold; all rounds are in {}", directory.display());
    let drawing = chart::draw(&all);
    fs::write(directory.join("performance.svg"), &drawing).context("writing the chart")?;
    if options.write_readme {
        write_readme(project, &all, &machine, &drawing)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The README's section and its chart, from this run.
fn write_readme(project: &Project, all: &[Series], machine: &Machine, drawing: &str) -> Result<()> {
    let path = project.root.join("README.md");
    let readme = fs::read_to_string(&path).context("reading README.md")?;
    let section = report::readme_section(all, machine);
    let written = report::replace_section(&readme, &section).context("README.md has no markers for the section")?;
    fs::write(&path, written).context("writing README.md")?;
    fs::write(project.root.join("docs/performance.svg"), drawing).context("writing docs/performance.svg")?;
    println!("wrote README.md and docs/performance.svg");
    Ok(())
}

/// The service and its load generator, built as they are deployed.
struct Programs {
    service: PathBuf,
    load: PathBuf,
}

impl Programs {
    fn build(project: &Project) -> Result<Self> {
        let built = project
            .cargo()
            .args(["build", "--release", "--message-format=json-render-diagnostics", "-p", "approov-web-service"])
            .args(["--bin", "approov-web-service", "--example", "load"])
            .stderr(Stdio::inherit())
            .output()
            .context("starting cargo build")?;
        ensure!(built.status.success(), "building the service and its load generator failed ({})", built.status);
        let messages = String::from_utf8(built.stdout).context("cargo's messages")?;
        Ok(Self { service: executable(&messages, "approov-web-service")?, load: executable(&messages, "load")? })
    }
}

/// The directory of the programs and pages that measure.
fn bench_directory(project: &Project) -> PathBuf {
    project.tests().join("bench")
}

/// Installs the peers as their lock file has them.
fn install_peers(project: &Project) -> Result<()> {
    tools::ensure_npm_packages(&bench_directory(project).join("peers"))
}

fn sdk(project: &Project, programs: &Programs, options: &Options, file: &Path) -> Result<Value> {
    let engines = tools::chosen_engines()?;
    let display =
        if engines.iter().any(|engine| engine.needs_display) { VirtualDisplay::start_if_needed()? } else { None };
    let names: Vec<&str> = engines.iter().map(|engine| engine.name).collect();
    let mut command = Command::new("node");
    command
        .arg(bench_directory(project).join("sdk.mjs"))
        .args(["--rounds", &options.rounds.to_string(), "--output"])
        .arg(file)
        .current_dir(project.tests())
        .env("APPROOV_TARBALL", project.tarball())
        .env("APPROOV_WEB_SERVICE", &programs.service)
        .env("APPROOV_ENGINES", names.join(","))
        .env("PATH", tools::path()?);
    if let Some(display) = &display {
        command.env("DISPLAY", display.name());
    }
    run(&mut command)?;
    read(file)
}

fn size(project: &Project, file: &Path) -> Result<Value> {
    run(Command::new("node")
        .arg(bench_directory(project).join("sizes.mjs"))
        .arg("--dist")
        .arg(project.dist())
        .arg("--output")
        .arg(file))?;
    read(file)
}

/// Refresh requests on loopback, the service on one core; bare verification on the same core before each round.
fn service(programs: &Programs, options: &Options) -> Result<Value> {
    let mut reports = Vec::new();
    for round in 1..=NATIVE_ROUNDS {
        println!("round {round} of {NATIVE_ROUNDS}: {} refresh requests…", options.requests);
        let printed = output(
            Command::new(&programs.load)
                .args(["--json", "--requests", &options.requests.to_string(), "--service"])
                .arg(&programs.service),
        )?;
        reports.push(serde_json::from_str::<Value>(&printed).context("reading the load generator's report")?);
    }
    let series = [
        ("refresh_per_second", "service rate", "ours: refresh", "per second"),
        ("es256_verifications_per_second", "service rate", "bare ES256 verification", "per second"),
        ("processor_micros_per_request", "service processor time", "ours: refresh", "µs"),
        ("processor_micros_per_verification", "service processor time", "bare ES256 verification", "µs"),
        ("p50_ms", "service time", "half of the requests within", "ms"),
        ("p99_ms", "service time", "99 of 100 requests within", "ms"),
        ("resident_mib_before", "service memory", "ours: first half", "MiB"),
        ("resident_mib_after", "service memory", "ours: second half", "MiB"),
    ]
    .into_iter()
    .map(|(member, measure, subject, unit)| {
        let rounds = reports.iter().map(|report| {
            report
                .get(member)
                .and_then(Value::as_f64)
                .with_context(|| format!("the load generator reports no {member}"))
        });
        Ok(Series::new(measure, subject, unit, rounds.collect::<Result<_>>()?).to_json())
    })
    .collect::<Result<Vec<_>>>()?;
    Ok(json!({ "reports": reports, "series": series }))
}

/// The floods of the tests, whose honest client reports how long it waited before and during each.
fn attacks(project: &Project, directory: &Path) -> Result<Value> {
    let file = directory.join("floods.jsonl");
    let mut reports = Vec::new();
    for round in 1..=NATIVE_ROUNDS {
        println!("round {round} of {NATIVE_ROUNDS}…");
        if file.exists() {
            fs::remove_file(&file).context("removing the report of an earlier round")?;
        }
        run(test::attacks(project).args(["--test-threads=1", "--quiet"]).env("APPROOV_ATTACKS_REPORT", &file))?;
        let text = fs::read_to_string(&file).context("the floods left no report")?;
        for line in text.lines() {
            reports.push(serde_json::from_str::<Value>(line).context("reading the report of a flood")?);
        }
    }
    let mut series: Vec<Series> = Vec::new();
    for report in &reports {
        let flood = report.get("flood").and_then(Value::as_str).context("a flood without a name")?;
        for (subject, member) in [(QUIET, "/quiet/p99_ms"), (FLOODED, "/flooded/p99_ms")] {
            let p99 = report.pointer(member).and_then(Value::as_f64);
            let p99 = p99.with_context(|| format!("{flood}: the report has no {member}"))?;
            let measure = format!("under attack: {flood}");
            match series.iter_mut().find(|series| series.measure == measure && series.subject == subject) {
                Some(series) => series.rounds.push(p99),
                None => series.push(Series::new(&measure, subject, "ms", vec![p99])),
            }
        }
    }
    Ok(json!({ "reports": reports, "series": series.iter().map(Series::to_json).collect::<Vec<_>>() }))
}

/// Criterion's benchmarks of the verify crate and the gate, several short runs of them, and the packages made from it next to libraries.
fn verify(project: &Project, directory: &Path) -> Result<Value> {
    let home = directory.join("criterion");
    let mut series: Vec<Series> = Vec::new();
    for _ in 0..NATIVE_ROUNDS {
        if home.exists() {
            fs::remove_dir_all(&home).context("removing the results of an earlier run")?;
        }
        for (package, bench) in [("approov-verify", "verify"), ("approov-gate", "gate")] {
            run(project
                .cargo()
                .args(["bench", "-p", package, "--bench", bench, "--", "--noplot", "--quiet"])
                .args(["--warm-up-time", "0.5", "--measurement-time", "1"])
                .env("CRITERION_HOME", &home))?;
        }
        for (name, nanoseconds) in criterion_medians(&home)? {
            let microseconds = nanoseconds / 1000.0;
            match series.iter_mut().find(|series| series.subject == name) {
                Some(series) => series.rounds.push(microseconds),
                None => series.push(Series::new("verify", &name, "µs", vec![microseconds])),
            }
        }
    }
    ensure!(!series.is_empty(), "criterion left no results");
    series.sort_by(|a, b| {
        b.subject.starts_with("whole").cmp(&a.subject.starts_with("whole")).then(a.subject.cmp(&b.subject))
    });
    let mut npm = Command::new("node");
    npm.arg("bench.mjs").current_dir(project.root.join(test::VERIFY_NPM_TESTS));
    let mut pypi = Command::new(test::verify_packages(project)?);
    pypi.arg("bench.py").current_dir(project.root.join(test::VERIFY_PYTHON_TESTS));
    for mut command in [npm, pypi] {
        let rounds: BTreeMap<String, Vec<f64>> =
            serde_json::from_str(&output(&mut command)?).context("the rounds of a package")?;
        series.extend(rounds.into_iter().map(|(subject, rounds)| Series::new("verify", &subject, "µs", rounds)));
    }
    Ok(json!({ "series": series.iter().map(Series::to_json).collect::<Vec<_>>() }))
}

/// Name and median in nanoseconds of each benchmark that criterion wrote down.
fn criterion_medians(home: &Path) -> Result<Vec<(String, f64)>> {
    let mut medians = Vec::new();
    for entry in fs::read_dir(home).with_context(|| format!("reading {}", home.display()))? {
        let newest = entry?.path().join("new");
        if !newest.is_dir() {
            continue;
        }
        let name = read(&newest.join("benchmark.json"))?;
        let name = name.get("full_id").and_then(Value::as_str).context("a benchmark without a name")?.to_owned();
        let estimates = read(&newest.join("estimates.json"))?;
        let median = estimates.pointer("/median/point_estimate").and_then(Value::as_f64);
        medians.push((name, median.context("a benchmark without a median")?));
    }
    Ok(medians)
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_names_all_parts_are_measured() {
        assert_eq!(Options::parse(&[]).unwrap().parts, Part::ALL);
        assert_eq!(Options::parse(&["verify", "size"]).unwrap().parts, [Part::Verify, Part::Size]);
    }

    #[test]
    fn numbers_are_taken_and_anything_else_is_refused() {
        let options = Options::parse(&["service", "--requests", "1000000", "--rounds", "3"]).unwrap();
        assert_eq!((options.requests, options.rounds), (1_000_000, 3));
        for arguments in [["--requests", "0"], ["--rounds", "many"], ["sdk", "--requests"], ["speed", "sdk"]] {
            assert!(Options::parse(&arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn the_readme_is_written_from_a_whole_run_only() {
        assert!(Options::parse(&["--write-readme"]).unwrap().write_readme);
        assert!(Options::parse(&["size", "--write-readme"]).is_err());
    }

    #[test]
    fn criterions_medians_are_read() {
        let home = std::env::temp_dir().join(format!("approov-xtask-criterion-{}", std::process::id()));
        let newest = home.join("whole verification").join("new");
        fs::create_dir_all(&newest).unwrap();
        fs::create_dir_all(home.join("report")).unwrap();
        fs::write(newest.join("benchmark.json"), r#"{"full_id":"whole: verification"}"#).unwrap();
        fs::write(newest.join("estimates.json"), r#"{"mean":{"point_estimate":9.0},"median":{"point_estimate":5.5}}"#)
            .unwrap();
        let medians = criterion_medians(&home).unwrap();
        fs::remove_dir_all(&home).unwrap();
        assert_eq!(medians, [("whole: verification".to_owned(), 5.5)]);
    }
}
