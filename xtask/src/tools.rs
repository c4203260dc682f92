//! What the tasks need on a machine: installed where that is possible, named exactly where it is not.
//!
//! A fresh Debian machine with rustup, Node, git and a C linker is enough to start from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{output, run, succeeds};
use crate::project::{Project, cargo};

/// A pinned program from crates.io, kept in the user's cache, apart from the programs the user installed.
pub(crate) struct CargoTool {
    package: &'static str,
    version: &'static str,
    programs: &'static [&'static str],
}

/// Must equal the `wasm-bindgen` version in `Cargo.lock`.
pub(crate) const WASM_BINDGEN: CargoTool = CargoTool {
    package: "wasm-bindgen-cli",
    version: "0.2.130",
    programs: &["wasm-bindgen", "wasm-bindgen-test-runner"],
};
/// Drives cargo and wasm-bindgen for the package.
pub(crate) const WASM_PACK: CargoTool = CargoTool { package: "wasm-pack", version: "0.15.1", programs: &["wasm-pack"] };

/// Checks every feature of a crate alone.
pub(crate) const CARGO_HACK: CargoTool =
    CargoTool { package: "cargo-hack", version: "0.6.46", programs: &["cargo-hack"] };
/// Checks licences, sources and duplicates among the dependencies: `deny.toml`.
pub(crate) const CARGO_DENY: CargoTool =
    CargoTool { package: "cargo-deny", version: "0.20.2", programs: &["cargo-deny"] };

/// A program from a Debian package.
struct DebianTool {
    program: &'static str,
    package: &'static str,
}

/// geckodriver is not packaged by Debian.
const GECKODRIVER: CargoTool = CargoTool { package: "geckodriver", version: "0.37.1", programs: &["geckodriver"] };

/// A browser engine that the tests run in, and what it takes to drive it.
pub(crate) struct Engine {
    /// The name that `APPROOV_ENGINES` and the test harness know.
    pub(crate) name: &'static str,
    /// Whether it has no headless mode.
    pub(crate) needs_display: bool,
    /// Its WebDriver program, and the variable in which wasm-bindgen's test runner takes a program of that kind. What it
    /// calls Safari's is any driver that works without requested capabilities, such as WebKitGTK's.
    driver: (&'static str, &'static str),
    debian: &'static [DebianTool],
    cargo: &'static [&'static CargoTool],
}

impl Engine {
    /// The driver, as environment variable and value for wasm-bindgen's test runner.
    pub(crate) fn driver_for_wasm_bindgen(&self) -> Result<(&'static str, PathBuf)> {
        let (variable, program) = self.driver;
        let installed = self.cargo.iter().find(|tool| tool.programs.contains(&program));
        let path = match installed {
            Some(tool) => tool.programs_directory()?.join(program),
            None => find(program).with_context(|| format!("{program} is not on PATH"))?,
        };
        Ok((variable, path))
    }
}

/// The engine that the demo's check uses.
pub(crate) const CHROMIUM: Engine = Engine {
    name: "chromium",
    needs_display: false,
    driver: ("CHROMEDRIVER", "chromedriver"),
    debian: &[
        DebianTool { program: "chromium", package: "chromium" },
        DebianTool { program: "chromedriver", package: "chromium-driver" },
    ],
    cargo: &[],
};

const ENGINES: &[Engine] = &[
    CHROMIUM,
    Engine {
        name: "firefox",
        needs_display: false,
        driver: ("GECKODRIVER", "geckodriver"),
        debian: &[DebianTool { program: "firefox", package: "firefox-esr" }],
        cargo: &[&GECKODRIVER],
    },
    Engine {
        name: "webkit",
        needs_display: true,
        driver: ("SAFARIDRIVER", "WebKitWebDriver"),
        debian: &[
            DebianTool { program: "WebKitWebDriver", package: "webkit2gtk-driver" },
            DebianTool { program: "Xvfb", package: "xvfb" },
        ],
        cargo: &[],
    },
];

/// The engines of this run: those that the environment variable `APPROOV_ENGINES` names, separated by commas; all by default.
pub(crate) fn chosen_engines() -> Result<Vec<&'static Engine>> {
    let Ok(chosen) = env::var("APPROOV_ENGINES") else {
        return Ok(ENGINES.iter().collect());
    };
    chosen
        .split(',')
        .map(|name| {
            let engine = ENGINES.iter().find(|engine| engine.name == name.trim());
            engine.with_context(|| format!("APPROOV_ENGINES names {name:?}; known are chromium, firefox and webkit"))
        })
        .collect()
}

/// Installs the browsers and drivers of these engines.
pub(crate) fn ensure_engines(engines: &[&Engine]) -> Result<()> {
    let debian: Vec<&DebianTool> = engines.iter().flat_map(|engine| engine.debian).collect();
    ensure_debian_tools(&debian)?;
    engines.iter().try_for_each(|engine| ensure_cargo_tools(engine.cargo))
}

/// `PATH` with the pinned tools of the bindings and of every engine in front.
pub(crate) fn path() -> Result<OsString> {
    let tools =
        [&WASM_BINDGEN, &WASM_PACK].into_iter().chain(ENGINES.iter().flat_map(|engine| engine.cargo.iter().copied()));
    let mut directories = tools.map(CargoTool::programs_directory).collect::<Result<Vec<_>>>()?;
    directories.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(directories).context("joining PATH")
}

impl CargoTool {
    fn root(&self) -> Result<PathBuf> {
        Ok(cache()?.join(format!("{}-{}", self.package, self.version)))
    }

    fn programs_directory(&self) -> Result<PathBuf> {
        Ok(self.root()?.join("bin"))
    }

    /// The path of the tool's program, after [`ensure_cargo_tools`].
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let name = self.programs.first().with_context(|| format!("{} names no program", self.package))?;
        Ok(self.programs_directory()?.join(name))
    }

    fn is_installed(&self) -> Result<bool> {
        let directory = self.programs_directory()?;
        Ok(self.programs.iter().all(|program| directory.join(program).is_file()))
    }

    /// With the versions the tool was published with; where a registry mirror lacks one of those, with the newest that fit.
    fn install(&self) -> Result<()> {
        println!("building {} {} from source, once: it usually takes a minute", self.package, self.version);
        if let Err(error) = run(self.installation()?.arg("--locked")) {
            println!("{error:#}; trying again with the newest compatible dependencies");
            run(&mut self.installation()?)?;
        }
        Ok(())
    }

    /// Built without optimisation: these tools run for seconds, building them optimised takes minutes.
    fn installation(&self) -> Result<Command> {
        let mut command = Command::new(cargo());
        command
            .args(["install", "--force", self.package, "--version", self.version, "--root"])
            .arg(self.root()?)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env_remove("CARGO_BUILD_TARGET")
            .current_dir(env::temp_dir());
        Ok(command)
    }
}

/// Installs the pinned tools that the cache lacks.
pub(crate) fn ensure_cargo_tools(tools: &[&CargoTool]) -> Result<()> {
    for tool in tools {
        if !tool.is_installed()? {
            tool.install()?;
        }
    }
    Ok(())
}

/// Adds the WebAssembly target to the toolchain in use.
pub(crate) fn ensure_wasm_target(project: &Project) -> Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let libraries = output(
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).current_dir(&project.root),
    )?;
    if PathBuf::from(libraries.trim()).is_dir() {
        return Ok(());
    }
    rustup(project, &["target", "add", TARGET])
}

/// The release of Rust that `rust-toolchain.toml` pins. Why it is pinned: `package/trap_panics.rs`.
pub(crate) const RUST: &str = "1.95.0";

/// Fails unless the compiler is the pinned one: another package manager than rustup does not read `rust-toolchain.toml`.
pub(crate) fn ensure_pinned_rust(project: &Project) -> Result<()> {
    let version = output(Command::new("rustc").arg("--version").current_dir(&project.root))?;
    ensure!(
        version.split_whitespace().nth(1) == Some(RUST),
        "the package is built with Rust {RUST}, and this is {}: see \"Another Rust toolchain\" in CONTRIBUTING.md",
        version.trim()
    );
    Ok(())
}

/// Installs another release of Rust next to the pinned one.
pub(crate) fn ensure_rust_release(project: &Project, release: &str) -> Result<()> {
    if succeeds(Command::new("rustup").args(["run", release, "cargo", "--version"])) {
        return Ok(());
    }
    rustup(project, &["toolchain", "install", release, "--profile", "minimal", "--no-self-update"])
}

/// Adds the formatter and the linter to the toolchain in use.
pub(crate) fn ensure_rust_components(project: &Project) -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds(project.cargo().args([subcommand, "--version"])) {
            rustup(project, &["component", "add", component])?;
        }
    }
    Ok(())
}

fn rustup(project: &Project, arguments: &[&str]) -> Result<()> {
    let wanted = arguments.join(" ");
    if find("rustup").is_none() {
        bail!("the Rust toolchain lacks something and rustup is not there to add it: `rustup {wanted}`");
    }
    run(Command::new("rustup").args(arguments).current_dir(&project.root))
}

/// Installs the npm packages of a directory as its lock file has them.
pub(crate) fn ensure_npm_packages(directory: &Path) -> Result<()> {
    if find("node").is_none() || find("npm").is_none() {
        bail!("Node.js 20 or newer with npm is needed: https://nodejs.org or `apt-get install nodejs npm`");
    }
    let lock = directory.join("package-lock.json");
    let wanted = fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
    let stamp = directory.join("node_modules/.installed-lock.json");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(directory))?;
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))
}

/// The Python of a virtual environment of this name in the build directory that has the packages of these requirement files.
pub(crate) fn ensure_python_packages(project: &Project, name: &str, requirements: &[PathBuf]) -> Result<PathBuf> {
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        install_debian_packages(&["python3", "python3-venv"])?;
    }
    let wanted = requirements
        .iter()
        .map(|path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display())))
        .collect::<Result<String>>()?;
    let environment = project.target.join(name);
    let python = environment.join("bin/python");
    let stamp = environment.join("installed-requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    for path in requirements {
        install.arg("--requirement").arg(path);
    }
    run(&mut install)?;
    fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(python)
}

/// Installs the Debian packages of the programs that are missing.
fn ensure_debian_tools(tools: &[&DebianTool]) -> Result<()> {
    let missing: Vec<&str> =
        tools.iter().filter(|tool| find(tool.program).is_none()).map(|tool| tool.package).collect();
    if missing.is_empty() { Ok(()) } else { install_debian_packages(&missing) }
}

/// Installs jq, which the conformance kit's runner needs.
pub(crate) fn ensure_jq() -> Result<()> {
    ensure_debian_tools(&[&DebianTool { program: "jq", package: "jq" }])
}

/// Installs the Redis server, which replicas of the service share in a test.
pub(crate) fn ensure_redis() -> Result<()> {
    ensure_debian_tools(&[&DebianTool { program: "redis-server", package: "redis-server" }])
}

/// Installs the gateways that Debian has, which ask the gate in a test.
pub(crate) fn ensure_gateways() -> Result<()> {
    ensure_debian_tools(
        &[
            DebianTool { program: "nginx", package: "nginx-light" },
            DebianTool { program: "caddy", package: "caddy" },
            DebianTool { program: "haproxy", package: "haproxy" },
        ]
        .each_ref(),
    )
}

fn install_debian_packages(packages: &[&str]) -> Result<()> {
    let Some(administrator) = administrator().filter(|_| find("apt-get").is_some()) else {
        bail!(
            "install these Debian packages (or what brings the same programs elsewhere) and run this again:\n  sudo apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
    };
    let apt = || {
        let mut parts = administrator.iter().chain(&["apt-get"]);
        let mut command = Command::new(parts.next().copied().unwrap_or("apt-get"));
        command.args(parts).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().args(["update", "-q"]))?;
    run(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(packages))
}

/// What to put in front of a command to run it as root: nothing for root, `sudo -n` where that needs no password.
fn administrator() -> Option<&'static [&'static str]> {
    if output(Command::new("id").arg("-u")).is_ok_and(|user| user.trim() == "0") {
        Some(&[])
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        Some(&["sudo", "-n"])
    } else {
        None
    }
}

/// The first program of this name on `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Where the pinned tools are kept.
fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("approov-web-sdk"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    /// The files of this name in the repository, apart from what was built or installed.
    fn files_named(name: &str, directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let last = path.file_name().and_then(OsStr::to_str).unwrap();
            if path.is_dir() && !["node_modules", "target", "dist", ".git", ".next"].contains(&last) {
                files_named(name, &path, found);
            } else if last == name {
                found.push(path);
            }
        }
    }

    fn lock_files(name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files_named(name, &PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
        assert!(!found.is_empty());
        found
    }

    #[test]
    fn npm_lock_files_name_no_registry() {
        for path in lock_files("package-lock.json") {
            let lock = fs::read_to_string(&path).unwrap();
            assert!(!lock.contains("\"resolved\": \"http"), "{} names a registry", path.display());
        }
    }

    #[test]
    fn cargo_lock_files_name_only_crates_io() {
        for path in lock_files("Cargo.lock") {
            for line in fs::read_to_string(&path).unwrap().lines().filter(|line| line.starts_with("source = ")) {
                assert_eq!(
                    line,
                    "source = \"registry+https://github.com/rust-lang/crates.io-index\"",
                    "{}",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn the_toolchain_file_and_the_workspace_name_the_pinned_release_of_rust() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let toolchain = fs::read_to_string(root.join("rust-toolchain.toml")).unwrap();
        assert!(toolchain.contains(&format!("channel = \"{RUST}\"\n")), "RUST and rust-toolchain.toml disagree");
        let workspace = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let (release, _) = RUST.rsplit_once('.').unwrap();
        assert!(workspace.contains(&format!("rust-version = \"{release}\"\n")), "RUST and Cargo.toml disagree");
    }

    #[test]
    fn the_pinned_wasm_bindgen_is_the_one_in_cargo_lock() {
        let lock = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap();
        let wanted = format!("name = \"wasm-bindgen\"\nversion = \"{}\"\n", WASM_BINDGEN.version);
        assert!(lock.contains(&wanted), "WASM_BINDGEN and Cargo.lock disagree");
    }
}
