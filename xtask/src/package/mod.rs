//! `cargo xtask package`: from the crate to `dist/` and the npm tarball.
//!
//! wasm-pack compiles and binds, wasm-opt optimises, esbuild joins the facade (`pkg-template/approov.js`) with the
//! generated glue and with one of two ways to reach the WebAssembly: embedded in the file, or as a file next to it.
//! The crate is compiled twice: whole, and without the `wasm-key` feature for the lite entry.

mod compat;
mod glue;
mod trap_panics;
pub(crate) mod verify;
mod wasm_text;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{output, run};
use crate::project::Project;
use crate::tools::{self, WASM_BINDGEN, WASM_PACK};

/// Where a bundle's WebAssembly is.
#[derive(Clone, Copy)]
enum Wasm {
    /// In the JavaScript itself, as text.
    Embedded,
    /// In a file of this name next to the JavaScript, found by its URL.
    External(&'static str),
    /// The same, imported as a module, where nothing else may be compiled.
    Module(&'static str),
    /// Nowhere: it has become JavaScript.
    Translated,
}

/// One way to compile the crate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    /// With the default features.
    Whole,
    /// Without the key store in WebAssembly memory, which is half of the code.
    Lite,
}

impl Build {
    const ALL: [Self; 2] = [Self::Whole, Self::Lite];

    /// Where its bindings go, below the work directory.
    const fn directory(self) -> &'static str {
        match self {
            Self::Whole => "bindings",
            Self::Lite => "bindings-lite",
        }
    }

    const fn cargo_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Whole => &["--package", "approov-web-sdk"],
            Self::Lite => &["--package", "approov-web-sdk", "--no-default-features"],
        }
    }
}

/// One JavaScript file of the package with a build of the WebAssembly.
struct Bundle {
    file: &'static str,
    build: Build,
    wasm: Wasm,
    entry: Entry,
}

/// What a bundle has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// Everything, so that it can be copied alone.
    Alone,
    /// The facade; the errors, and the whole build where it has not got it, are files next to it.
    Facade,
    /// The whole build alone, for a facade that lacks it.
    Build,
}

const BUNDLES: &[Bundle] = &[
    Bundle { file: "approov.js", build: Build::Whole, wasm: Wasm::Embedded, entry: Entry::Alone },
    Bundle { file: "node.js", build: Build::Whole, wasm: Wasm::Embedded, entry: Entry::Facade },
    Bundle {
        file: "whole.js",
        build: Build::Whole,
        wasm: Wasm::External("approov_whole_bg.wasm"),
        entry: Entry::Build,
    },
    Bundle { file: "index.js", build: Build::Lite, wasm: Wasm::External("approov_bg.wasm"), entry: Entry::Facade },
    Bundle { file: "workerd.js", build: Build::Lite, wasm: Wasm::Module("approov_bg.wasm"), entry: Entry::Facade },
    Bundle { file: COMPAT, build: Build::Lite, wasm: Wasm::Translated, entry: Entry::Alone },
];

/// The file that the others load where there is no WebAssembly.
const COMPAT: &str = "approov.compat.js";

/// The entry of a file that has everything.
const ONE_FILE: &str = "one-file.js";

/// The files of the package without WebAssembly.
const SCRIPTS: &[&str] = &["errors.js", "checks.js", "testing.js"];

/// What the bundles are made of, in `pkg-template/`.
const SOURCES: &[&str] = &[
    "approov.js",
    "built-ins.js",
    "checks.js",
    "compat.js",
    "create-fetch.js",
    "errors.js",
    "events.js",
    "one-file.js",
    "record.js",
    "without-wasm.js",
];

/// What `pkg-template/import-module.d.ts` declares. It is put before what esbuild makes, which would leave the comments out that keep
/// bundlers from following the import.
const IMPORT_MODULE: &str = "const importModule=a=>import(/* webpackIgnore: true */ /* @vite-ignore */ a);";

/// What esbuild does with every file.
const ESBUILD: &[&str] = &[
    "--bundle",
    "--format=esm",
    "--target=es2022",
    "--minify",
    "--charset=utf8",
    "--legal-comments=none",
    "--log-level=warning",
    "--sourcemap",
];

/// Files that the package takes over as they are: source in the repository, name in the package.
const COPIED: &[(&str, &str)] = &[
    ("pkg-template/approov.d.ts", "approov.d.ts"),
    ("pkg-template/checks.d.ts", "checks.d.ts"),
    ("pkg-template/one-file.d.ts", "one-file.d.ts"),
    ("pkg-template/testing.d.ts", "testing.d.ts"),
    ("pkg-template/README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
];

/// The features that wasm-opt may use: those that rustc's target has by default, which every current engine understands.
const FEATURES: &[&str] = &[
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// What wasm-opt does: what is smallest after brotli, found by trial.
const WASM_OPT: &[&str] = &[
    "-Oz",
    "--converge",
    // The first kilobyte is the far end of the stack, which grows down: a load or store there is a stack that overflows.
    "--low-memory-unused",
    "--flatten",
    "--rereloop",
    "-Oz",
    "-Oz",
    "--type-merging",
    // Neighbours have much in common, which brotli sees.
    "--reorder-functions-by-name",
    // Functions with one caller stay functions: larger by the byte, smaller after brotli.
    "--one-caller-inline-max-function-size=30",
    "--debuginfo",
];

/// What wasm-opt does after that, once.
const WASM_STRIP: &[&str] = &[
    "--strip-debug",
    "--strip-producers",
    "--strip-target-features",
    // Short names for what the glue and the WebAssembly share; prints which name became which.
    "--minify-imports-and-exports-and-modules",
];

/// Builds everything. `dist/` is replaced only when all of it was built.
pub(crate) fn build(project: &Project) -> Result<()> {
    install_tools(project)?;
    let work = project.target.join("package");
    let dist = work.join("dist");
    recreate(&dist)?;
    for build in Build::ALL {
        let glue = compile(project, build, &work)?;
        for bundle in BUNDLES.iter().filter(|bundle| bundle.build == build) {
            assemble(project, bundle, &glue, &work, &dist)?;
        }
    }
    for file in SCRIPTS {
        let external: &[&str] = if *file == "errors.js" { &[] } else { &["--external:*/errors.js"] };
        let directory = project.root.join("pkg-template");
        esbuild(project, &directory, file, &dist.join(file), external)?;
    }
    for (source, name) in COPIED {
        copy(&project.root.join(source), &dist.join(name))?;
    }
    write_package_json(project, &dist)?;
    run(Command::new("node").arg(project.root.join("xtask/integrity.mjs")).arg(&dist))?;

    if project.dist().exists() {
        fs::remove_dir_all(project.dist()).context("removing the old dist/")?;
    }
    copy_directory(&dist, &project.dist())?;
    run(Command::new("npm").args(["pack", "--silent", "--pack-destination", "."]).current_dir(project.dist()))?;
    ensure!(project.tarball().is_file(), "npm pack did not write {}", project.tarball().display());
    print_sizes(project)
}

/// What [`build`] needs.
pub(crate) fn install_tools(project: &Project) -> Result<()> {
    tools::ensure_pinned_rust(project)?;
    tools::ensure_wasm_target(project)?;
    tools::ensure_cargo_tools(&[&WASM_BINDGEN, &WASM_PACK])?;
    tools::ensure_npm_packages(&project.npm_tools())
}

/// The generated JavaScript glue and the optimised WebAssembly.
struct Glue {
    javascript: PathBuf,
    wasm: PathBuf,
    /// What cargo has compiled, before all that.
    compiled: PathBuf,
}

fn compile(project: &Project, build: Build, work: &Path) -> Result<Glue> {
    let directory = work.join(build.directory());
    recreate(&directory)?;
    run(Command::new(WASM_PACK.program()?)
        .args(["build", "--profile", "wasm", "--target", "web", "--mode", "no-install"])
        .args(["--no-opt", "--no-pack", "--no-typescript", "--out-name", "approov", "--out-dir"])
        .arg(&directory)
        .arg(&project.root)
        .arg("--")
        .args(build.cargo_arguments())
        .args(without_machine_paths()?)
        .env("PATH", tools::path()?))?;
    let bound = directory.join("approov_bg.wasm");
    let trapping = directory.join("approov_bg.trapping.wasm");
    let optimised = directory.join("approov_bg.optimised.wasm");
    let stripped = directory.join("approov_bg.stripped.wasm");
    fs::write(&trapping, trap_panics::trap_panics(&fs::read(&bound)?)?)?;
    let wasm_opt = project.npm_program("wasm-opt");
    run(Command::new(&wasm_opt).args(FEATURES).args(WASM_OPT).arg(&trapping).arg("-o").arg(&optimised))?;
    let names =
        output(Command::new(&wasm_opt).args(FEATURES).args(WASM_STRIP).arg(&optimised).arg("-o").arg(&stripped))?;
    let javascript = directory.join("approov.js");
    glue::rename(project, &javascript, &names)?;
    let compiled = directory.join("compiled.wasm");
    copy(&project.target.join("wasm32-unknown-unknown/wasm/approov_web_sdk.wasm"), &compiled)?;
    Ok(Glue { javascript, wasm: stripped, compiled })
}

/// Cargo's options that make the same WebAssembly on every machine, so that `integrity.json` can be compared: without them the
/// places of the dependencies' sources are in the data, and their length moves what comes after, even when they are blanked later.
/// (They add to the flags in `.cargo/config.toml`; the variable `RUSTFLAGS` would replace those.)
fn without_machine_paths() -> Result<Vec<String>> {
    let home = match (env::var_os("CARGO_HOME"), env::home_dir()) {
        (Some(home), _) => PathBuf::from(home),
        (None, Some(home)) => home.join(".cargo"),
        (None, None) => bail!("neither CARGO_HOME nor a home directory is known"),
    };
    let registries = home.join("registry/src");
    let mut flags = Vec::new();
    for entry in fs::read_dir(&registries).with_context(|| format!("reading {}", registries.display()))? {
        flags.push(format!("--remap-path-prefix={}/=", entry?.path().display()));
    }
    // In a fixed order: cargo builds again for other flags.
    flags.sort();
    let flags = serde_json::to_string(&flags)?;
    Ok(vec!["--config".to_owned(), format!("target.wasm32-unknown-unknown.rustflags={flags}")])
}

/// Joins the facade, the glue and the bundle's source of the WebAssembly into one module.
fn assemble(project: &Project, bundle: &Bundle, glue: &Glue, work: &Path, dist: &Path) -> Result<()> {
    let directory = work.join(bundle.file.trim_end_matches(".js"));
    let sources = directory.join("src");
    recreate(&sources)?;
    for file in SOURCES {
        copy(&project.root.join("pkg-template").join(file), &sources.join(file))?;
    }
    write_sources(project, bundle, glue, &directory, dist)?;
    let beside = format!("--external:*/{COMPAT}");
    let (entry, external): (_, &[&str]) = match (bundle.wasm, bundle.entry) {
        (Wasm::Translated, _) => (compat::ENTRY_FILE, &[]),
        (_, Entry::Alone) => (ONE_FILE, &[&beside]),
        (_, Entry::Facade) => {
            ("approov.js", &["--external:*/errors.js", "--external:*/whole.js", "--external:*.wasm", &beside])
        }
        (_, Entry::Build) => ("whole-build.js", &[]),
    };
    let made = directory.join(bundle.file);
    esbuild(project, &sources, entry, &made, external)?;
    let map = format!("{}.map", bundle.file);
    copy(&directory.join(&map), &dist.join(&map))?;
    let code = fs::read_to_string(&made)?;
    let code = match bundle.wasm {
        Wasm::Embedded => wasm_text::with_bytes(&compat::with_unfollowed_import(&code)?, &fs::read(&glue.wasm)?)?,
        Wasm::External(_) if bundle.entry == Entry::Facade => compat::with_unfollowed_import(&code)?,
        Wasm::External(_) | Wasm::Module(_) => code,
        Wasm::Translated => compat::with_asm(&code, &directory)?,
    };
    fs::write(dist.join(bundle.file), code).with_context(|| format!("writing {}", bundle.file))
}

/// The sources of a bundle that are made: its glue, where its WebAssembly is, and which builds it can use.
fn write_sources(project: &Project, bundle: &Bundle, glue: &Glue, directory: &Path, dist: &Path) -> Result<()> {
    let sources = directory.join("src");
    let javascript = fs::read_to_string(&glue.javascript)?;
    let source = match bundle.wasm {
        Wasm::Embedded => wasm_text::SOURCE.to_owned(),
        Wasm::External(file) => external_source(file),
        Wasm::Module(file) => module_source(file),
        Wasm::Translated => return compat::translate(project, &glue.compiled, directory, &sources),
    };
    if let Wasm::External(file) | Wasm::Module(file) = bundle.wasm {
        copy(&glue.wasm, &dist.join(file))?;
    }
    let factory =
        if bundle.entry == Entry::Build { glue::later_factory(&javascript)? } else { glue::factory(&javascript)? };
    fs::write(sources.join("glue.js"), factory)?;
    let compiles = !matches!(bundle.wasm, Wasm::Module(_));
    fs::write(sources.join("builds.js"), glue::builds(bundle.build == Build::Whole, compiles))?;
    fs::write(sources.join("whole-build.js"), glue::WHOLE)?;
    fs::write(sources.join("wasm-source.js"), source).context("writing the sources of a bundle")
}

fn esbuild(project: &Project, directory: &Path, entry: &str, to: &Path, external: &[&str]) -> Result<()> {
    let mut esbuild = Command::new(project.npm_program("esbuild"));
    esbuild.arg(entry).args(ESBUILD).args(external).arg(format!("--outfile={}", to.display()));
    if matches!(entry, ONE_FILE | "checks.js" | compat::ENTRY_FILE) {
        esbuild.arg(format!("--banner:js={IMPORT_MODULE}"));
    }
    run(esbuild.current_dir(directory))
}

/// `wasm-source.js` of a build whose WebAssembly is imported as a compiled module.
fn module_source(file: &str) -> String {
    format!("import module from './{file}'\n\n/** The compiled module. */\nexport default async () => module\n")
}

/// `wasm-source.js` of a build whose WebAssembly is a file of its own. Bundlers recognise this form of URL.
fn external_source(file: &str) -> String {
    format!(
        "/** Where the WebAssembly module is. */\nexport default async function wasmSource() {{\n  return new URL('./{file}', import.meta.url)\n}}\n"
    )
}

/// The template with the crate's version, and with the repository that the package is released from, if one is named: npm signs the
/// provenance of nothing else. npm writes it, which keeps the order of the members (export conditions are ordered).
fn write_package_json(project: &Project, dist: &Path) -> Result<()> {
    copy(&project.root.join("pkg-template/package.json"), &dist.join("package.json"))?;
    let set = |arguments: &[&str]| run(Command::new("npm").args(["pkg", "set"]).args(arguments).current_dir(dist));
    set(&[&format!("version={}", project.version)])?;
    if let Ok(repository) = env::var(REPOSITORY) {
        set(&["repository.type=git", &format!("repository.url={repository}")])?;
        set(&["publishConfig.provenance=true", "--json"])?;
    }
    Ok(())
}

/// The variable with the URL of the repository.
const REPOSITORY: &str = "APPROOV_REPOSITORY";

fn print_sizes(project: &Project) -> Result<()> {
    let table = output(Command::new("node").arg(project.root.join("xtask/sizes.mjs")).arg(project.dist()))?;
    println!("\n{}\n\n{}", table.trim_end(), project.tarball().display());
    Ok(())
}

fn recreate(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    recreate(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
