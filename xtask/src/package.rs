//! `cargo xtask package`: from the crate to `dist/` and the npm tarball.
//!
//! wasm-pack compiles and binds, wasm-opt optimises, esbuild joins the facade (`pkg-template/approov.js`) with the
//! generated glue and with one of two ways to reach the WebAssembly: embedded in the file, or as a file beside it.
//! The crate is compiled twice: whole, and without the `wasm-key` feature for the lite entry.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::embed;
use crate::panics;
use crate::process::{output, run};
use crate::project::Project;
use crate::tools::{self, WASM_BINDGEN, WASM_PACK};

/// Where a bundle's WebAssembly is.
enum Wasm {
    /// In the JavaScript itself, as text.
    Embedded,
    /// In a file of this name beside the JavaScript.
    Beside(&'static str),
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
    Bundle { file: "index.js", build: Build::Whole, wasm: Wasm::Beside("approov_bg.wasm") },
    Bundle { file: "lite.js", build: Build::Lite, wasm: Wasm::Beside("approov_lite_bg.wasm") },
];

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
    tools::ensure_wasm_target(project)?;
    tools::ensure_cargo_tools(&[&WASM_BINDGEN, &WASM_PACK])?;
    tools::ensure_npm_packages(&project.tests())
}

/// The generated JavaScript glue and the optimised WebAssembly.
struct Glue {
    javascript: PathBuf,
    wasm: PathBuf,
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
    let compiled = directory.join("approov_bg.wasm");
    let trapping = directory.join("approov_bg.trapping.wasm");
    let optimised = directory.join("approov_bg.optimised.wasm");
    let stripped = directory.join("approov_bg.stripped.wasm");
    fs::write(&trapping, panics::without_words(&fs::read(&compiled)?)?)?;
    let wasm_opt = project.npm_program("wasm-opt");
    run(Command::new(&wasm_opt).args(FEATURES).args(WASM_OPT).arg(&trapping).arg("-o").arg(&optimised))?;
    let names =
        output(Command::new(&wasm_opt).args(FEATURES).args(WASM_STRIP).arg(&optimised).arg("-o").arg(&stripped))?;
    let javascript = directory.join("approov.js");
    fs::write(&javascript, with_short_names(&fs::read_to_string(&javascript)?, &names)?)?;
    Ok(Glue { javascript, wasm: stripped })
}

/// Cargo's options that keep the places of the dependencies' sources on this machine out of the panic messages. (They add
/// to the flags in `.cargo/config.toml`; the variable `RUSTFLAGS` would replace those.)
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
    // In a fixed order: cargo builds anew for other flags.
    flags.sort();
    let flags = serde_json::to_string(&flags)?;
    Ok(vec!["--config".to_owned(), format!("target.wasm32-unknown-unknown.rustflags={flags}")])
}

/// The glue, with the names that wasm-opt has given to what glue and WebAssembly share.
fn with_short_names(glue: &str, names: &str) -> Result<String> {
    let names: Value = serde_json::from_str(names).context("reading the names that wasm-opt printed")?;
    let table =
        |kind: &str| names.get(kind).and_then(Value::as_array).with_context(|| format!("no {kind} in the names"));
    let mut glue = glue.to_owned();
    let mut module = None;
    for import in table("imports")? {
        let [from, name, short] = texts(import)?;
        module = Some(from);
        glue = with_renamed(&glue, "        ", name, ": function", short)?;
    }
    let module = module.context("the WebAssembly imports nothing")?;
    glue = with_renamed(&glue, "        \"", module, "\": import0", "a")?;
    for export in table("exports")? {
        let [name, short] = texts(export)?;
        glue = with_renamed_member(&glue, name, short);
    }
    Ok(glue)
}

/// Replaces `name` where it stands between `before` and `after`, which must be once.
fn with_renamed(glue: &str, before: &str, name: &str, after: &str, short: &str) -> Result<String> {
    let old = format!("{before}{name}{after}");
    let count = glue.matches(&old).count();
    ensure!(count == 1, "the generated glue has {name} {count} times");
    Ok(glue.replace(&old, &format!("{before}{short}{after}")))
}

/// Replaces the member `name` of `wasm`, the object of the exports.
fn with_renamed_member(glue: &str, name: &str, short: &str) -> String {
    let mut renamed = String::with_capacity(glue.len());
    let mut pieces = glue.split("wasm.");
    renamed.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        renamed.push_str("wasm.");
        match piece.strip_prefix(name) {
            Some(rest) if !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') => {
                renamed.push_str(short);
                renamed.push_str(rest);
            }
            _ => renamed.push_str(piece),
        }
    }
    renamed
}

fn texts<const N: usize>(row: &Value) -> Result<[&str; N]> {
    let row = row.as_array().context("a name that is no row")?;
    let texts: Vec<&str> = row.iter().filter_map(Value::as_str).collect();
    texts.try_into().map_err(|_| anyhow!("a row of names that does not have {N} texts"))
}

/// Joins the facade, the glue and the bundle's source of the WebAssembly into one module.
fn assemble(project: &Project, bundle: &Bundle, glue: &Glue, work: &Path, dist: &Path) -> Result<()> {
    let directory = work.join(bundle.file.trim_end_matches(".js"));
    let sources = directory.join("src");
    recreate(&sources)?;
    for file in ["approov.js", "built-ins.js"] {
        copy(&project.root.join("pkg-template").join(file), &sources.join(file))?;
    }
    fs::write(sources.join("glue.js"), glue_factory(&fs::read_to_string(&glue.javascript)?)?)?;
    match bundle.wasm {
        Wasm::Embedded => {
            fs::write(sources.join("wasm-source.js"), embed::SOURCE)?;
        }
        Wasm::Beside(file) => {
            copy(&glue.wasm, &dist.join(file))?;
            fs::write(sources.join("wasm-source.js"), beside(file))?;
        }
    }
    run(Command::new(project.npm_program("esbuild"))
        .args(["src/approov.js", "--bundle", "--format=esm", "--target=es2022", "--minify", "--charset=utf8"])
        .args(["--legal-comments=none", "--log-level=warning"])
        .args(["--sourcemap", &format!("--outfile={}", bundle.file)])
        .current_dir(&directory))?;
    let map = format!("{}.map", bundle.file);
    copy(&directory.join(&map), &dist.join(&map))?;
    let code = fs::read_to_string(directory.join(bundle.file))?;
    let code = match bundle.wasm {
        Wasm::Embedded => embed::with_bytes(&code, &fs::read(&glue.wasm)?)?,
        Wasm::Beside(_) => code,
    };
    fs::write(dist.join(bundle.file), code).with_context(|| format!("writing {}", bundle.file))
}

/// `wasm-source.js` of a build whose WebAssembly is a file of its own. Bundlers recognise this form of URL.
fn beside(file: &str) -> String {
    format!(
        "/** Where the WebAssembly module is. */\nexport default async function wasmSource() {{\n  return new URL('./{file}', import.meta.url)\n}}\n"
    )
}

/// What the glue sees in place of the page's globals of these names, and the functions that the crate imports (`built-ins.js`).
const BUILT_INS: &str = "builtIns, DataView, FinalizationRegistry, JSON, Reflect, TextDecoder, TextEncoder, Uint8Array";

/// How the glue calls one of its own functions: by a method that the page can replace.
const APPLY: &str = "return f.apply(this, args);";

/// The functions that the facade calls, by their names in JavaScript.
const EXPORTS: &[&str] = &["initializeSession", "fetchToken", "getDPoPToken", "messageSignature", "getExpiries"];

/// The generated glue as a function that makes a fresh one.
///
/// As generated, the glue is a module with state: it can serve one instance of the WebAssembly for as long as the page lives, and
/// an instance that has trapped could not be replaced. Its own loading, at its end, is left out: the facade loads, and the glue's
/// way writes to the console and guesses a URL that bundlers would follow.
fn glue_factory(glue: &str) -> Result<String> {
    let (state, loading) = glue.split_once(LOADING).context("the generated glue does not load as expected")?;
    ensure!(
        loading.contains("function __wbg_init(") && state.contains("function __wbg_finalize_init(instance, module)"),
        "the generated glue does not initialise as expected"
    );
    let mut inside = String::new();
    for line in state.lines() {
        let line = line.strip_prefix("export ").unwrap_or(line);
        ensure!(
            !line.starts_with("import ") && !line.starts_with("export"),
            "the generated glue has the line {line:?}"
        );
        // Not indented: a line may be part of a text.
        writeln!(inside, "{line}")?;
    }
    ensure!(inside.matches(APPLY).count() == 1, "the generated glue does not call its functions as expected");
    let inside = inside.replace(APPLY, "return Reflect.apply(f, this, args);");
    for name in EXPORTS {
        ensure!(inside.contains(&format!("function {name}(")), "the generated glue has no function {name}");
    }
    let exports = EXPORTS.join(", ");
    Ok(format!(
        "import {{ {BUILT_INS} }} from './built-ins.js'\n\n\
         /** Makes the glue of one instance. */\nexport default function makeGlue() {{\n{inside}\
         return {{ imports: __wbg_get_imports, start: __wbg_finalize_init, {exports} }}\n}}\n"
    ))
}

/// With this the generated glue's own loading begins; all after it serves that.
const LOADING: &str = "async function __wbg_load(module, imports) {";

/// The template with the crate's version.
fn write_package_json(project: &Project, dist: &Path) -> Result<()> {
    let template = fs::read_to_string(project.root.join("pkg-template/package.json"))
        .context("reading pkg-template/package.json")?;
    let written = with_version(&template, &project.version)?;
    fs::write(dist.join("package.json"), written).context("writing package.json")
}

/// Replaces the version in place, so that the order of the template's members stays (export conditions are ordered).
fn with_version(template: &str, version: &str) -> Result<String> {
    let parsed: Value = serde_json::from_str(template).context("reading pkg-template/package.json")?;
    let old = parsed.get("version").and_then(Value::as_str).context("pkg-template/package.json has no version")?;
    let member = format!("\"version\": \"{old}\"");
    ensure!(template.matches(&member).count() == 1, "pkg-template/package.json must have {member} once");
    Ok(template.replace(&member, &format!("\"version\": \"{version}\"")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_glue_takes_the_short_names() {
        let glue = "function f(a) { return wasm.f(a, wasm.f_2); }\n    const import0 = {\n        __wbg_x_1: function(arg0) {\n        },\n    };\n    return {\n        \"./a_bg.js\": import0,\n    };\n";
        let names = r#"{"imports": [["./a_bg.js", "__wbg_x_1", "$"]], "exports": [["f", "b"], ["f_2", "c"]]}"#;
        let short = with_short_names(glue, names).unwrap();
        assert_eq!(
            short,
            "function f(a) { return wasm.b(a, wasm.c); }\n    const import0 = {\n        $: function(arg0) {\n        },\n    };\n    return {\n        \"a\": import0,\n    };\n"
        );
    }

    #[test]
    fn glue_that_lacks_an_import_is_an_error() {
        assert!(with_short_names("", r#"{"imports": [["./a_bg.js", "x", "$"]], "exports": []}"#).is_err());
    }

    #[test]
    fn the_version_is_replaced_and_the_order_of_members_stays() {
        let template = r#"{ "version": "0.0.0", "exports": { "types": "./a.d.ts", "default": "./a.js" } }"#;
        assert_eq!(with_version(template, "1.2.3").unwrap(), template.replace("0.0.0", "1.2.3"));
    }

    #[test]
    fn a_template_without_a_version_is_an_error() {
        assert!(with_version("{}", "1.2.3").is_err());
    }

    const GLUE: &str = "\
export function initializeSession(options) {}
export function fetchToken(api, options) {}
export function getDPoPToken(method) {}
export function messageSignature(message) {}
export function getExpiries() {}
function __wbg_get_imports() {}
let wasm;
function __wbg_finalize_init(instance, module) {}

async function __wbg_load(module, imports) {
}
async function __wbg_init(module_or_path) { new URL('approov_bg.wasm', import.meta.url) }
export { initSync, __wbg_init as default };
";

    #[test]
    fn the_glue_becomes_a_function_with_its_state_inside_and_without_its_loading() {
        let factory = glue_factory(GLUE).unwrap();
        let (head, inside) = factory.split_once("export default function makeGlue() {").unwrap();
        assert!(!head.contains("wasm;") && inside.contains("let wasm;"), "{factory}");
        assert!(!factory.contains("import.meta") && !inside.contains("export"), "{factory}");
        assert!(inside.contains("start: __wbg_finalize_init, initializeSession, fetchToken"), "{factory}");
    }

    #[test]
    fn glue_that_looks_otherwise_than_known_is_an_error() {
        for (part, other) in [
            ("async function __wbg_load", "async function load"),
            ("(instance, module)", "(instance)"),
            ("export function fetchToken", "export function fetchTokens"),
            ("let wasm;", "import { a } from 'b';"),
        ] {
            assert!(glue_factory(&GLUE.replacen(part, other, 1)).is_err(), "{part}");
        }
    }
}
