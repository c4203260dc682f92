//! `cargo xtask package`: from the crate to `dist/` and the npm tarball.
//!
//! wasm-pack compiles and binds, wasm-opt optimises, esbuild joins the facade (`pkg-template/approov.js`) with the
//! generated glue and with one of two ways to reach the WebAssembly: embedded in the file, or as a file next to it.
//! The crate is compiled twice: whole, and without the `wasm-key` feature for the lite entry, of which `compat.rs` makes the file that
//! does without WebAssembly.

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
enum Wasm {
    /// In the JavaScript itself, as text.
    Embedded,
    /// In a file of this name next to the JavaScript.
    External(&'static str),
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

/// One JavaScript file of the package.
struct Bundle {
    file: &'static str,
    build: Build,
    wasm: Wasm,
}

const BUNDLES: &[Bundle] = &[
    Bundle { file: "approov.js", build: Build::Whole, wasm: Wasm::Embedded },
    Bundle { file: "index.js", build: Build::Whole, wasm: Wasm::External("approov_bg.wasm") },
    Bundle { file: "lite.js", build: Build::Lite, wasm: Wasm::External("approov_lite_bg.wasm") },
    Bundle { file: COMPAT, build: Build::Lite, wasm: Wasm::Translated },
];

/// The file that the others load where there is no WebAssembly.
const COMPAT: &str = "approov.compat.js";

/// What every bundle is made of, in `pkg-template/`.
const SOURCES: &[&str] =
    &["approov.js", "built-ins.js", "compat.js", "create-fetch.js", "errors.js", "without-wasm.js"];

/// Files that the package takes over as they are: source in the repository, name in the package.
const COPIED: &[(&str, &str)] = &[
    ("pkg-template/approov.d.ts", "approov.d.ts"),
    ("pkg-template/lite.d.ts", "lite.d.ts"),
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
    let entry = match bundle.wasm {
        Wasm::Embedded | Wasm::External(_) => {
            fs::write(sources.join("glue.js"), glue::factory(&fs::read_to_string(&glue.javascript)?)?)?;
            fs::write(sources.join("builds.js"), BUILDS)?;
            "src/approov.js"
        }
        Wasm::Translated => {
            compat::translate(project, &glue.compiled, &directory, &sources)?;
            "src/entry.js"
        }
    };
    match bundle.wasm {
        Wasm::Embedded => fs::write(sources.join("wasm-source.js"), wasm_text::SOURCE)?,
        Wasm::External(file) => {
            copy(&glue.wasm, &dist.join(file))?;
            fs::write(sources.join("wasm-source.js"), external_source(file))?;
        }
        Wasm::Translated => {}
    }
    run(Command::new(project.npm_program("esbuild"))
        .args([entry, "--bundle", "--format=esm", "--target=es2022", "--minify", "--charset=utf8"])
        .args(["--legal-comments=none", "--log-level=warning"])
        .args(["--sourcemap", &format!("--external:./{COMPAT}"), &format!("--outfile={}", bundle.file)])
        .current_dir(&directory))?;
    let map = format!("{}.map", bundle.file);
    copy(&directory.join(&map), &dist.join(&map))?;
    let code = fs::read_to_string(directory.join(bundle.file))?;
    let code = match bundle.wasm {
        Wasm::Embedded => wasm_text::with_bytes(&compat::with_unfollowed_import(&code)?, &fs::read(&glue.wasm)?)?,
        Wasm::External(_) => compat::with_unfollowed_import(&code)?,
        Wasm::Translated => compat::with_asm(&code, &directory)?,
    };
    fs::write(dist.join(bundle.file), code).with_context(|| format!("writing {}", bundle.file))
}

/// `builds.js` of a bundle with WebAssembly: where that cannot be used, another file is.
const BUILDS: &str = "\
import makeGlue from './glue.js'
import source from './wasm-source.js'
import { withoutWasm } from './without-wasm.js'

export const own = { __proto__: null, makeGlue, source }
export const chosen = async (given) => (await withoutWasm(given)) ?? own
";

/// `wasm-source.js` of a build whose WebAssembly is a file of its own. Bundlers recognise this form of URL.
fn external_source(file: &str) -> String {
    format!(
        "/** Where the WebAssembly module is. */\nexport default async function wasmSource() {{\n  return new URL('./{file}', import.meta.url)\n}}\n"
    )
}

/// The template with the crate's version. npm writes it, which keeps the order of the members (export conditions are ordered).
fn write_package_json(project: &Project, dist: &Path) -> Result<()> {
    copy(&project.root.join("pkg-template/package.json"), &dist.join("package.json"))?;
    let version = format!("version={}", project.version);
    run(Command::new("npm").args(["pkg", "set", &version]).current_dir(dist))
}

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
