//! The JavaScript that wasm-bindgen generates: renamed to match the minified WebAssembly, and made a function that can be called
//! again for a fresh instance.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::process::output;
use crate::project::Project;

/// Gives what the glue shares with the WebAssembly the names that wasm-opt has printed. esbuild does it, which reads JavaScript:
/// all of them are properties, of the imports' object or of the exports'.
pub(super) fn rename(project: &Project, glue: &Path, printed: &str) -> Result<()> {
    let names = Names::read(printed)?;
    let cache = glue.with_file_name("names.json");
    fs::write(&cache, serde_json::to_string(&names.short)?).context("writing the names")?;
    // Not shown: the pattern names a hundred names.
    output(
        Command::new(project.npm_program("esbuild"))
            .arg(glue)
            .args(["--allow-overwrite", "--charset=utf8", "--log-level=warning", "--mangle-quoted"])
            .arg(format!("--mangle-props={}", names.pattern()))
            .arg(format!("--mangle-cache={}", cache.display()))
            .arg(format!("--outfile={}", glue.display())),
    )?;
    let renamed = fs::read_to_string(glue).context("reading the renamed glue")?;
    for name in &names.imports {
        ensure!(!renamed.contains(name.as_str()), "the glue still has the import {name}");
    }
    Ok(())
}

/// What glue and WebAssembly share, by its long name.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    short: BTreeMap<String, String>,
    /// Those that the glue has for the WebAssembly to call, and their module.
    imports: Vec<String>,
}

impl Names {
    fn read(printed: &str) -> Result<Self> {
        let printed: Value = serde_json::from_str(printed).context("reading the names that wasm-opt printed")?;
        let rows =
            |kind: &str| printed.get(kind).and_then(Value::as_array).with_context(|| format!("no {kind} in the names"));
        let (mut short, mut imports) = (BTreeMap::new(), Vec::new());
        for row in rows("imports")? {
            let [module, name, new] = texts(row)?;
            // wasm-opt calls the one module there is `a`.
            short.insert(module.clone(), "a".to_owned());
            short.insert(name.clone(), new);
            if !imports.contains(&module) {
                imports.push(module);
            }
            imports.push(name);
        }
        ensure!(!imports.is_empty(), "the WebAssembly imports nothing");
        for row in rows("exports")? {
            let [name, new] = texts(row)?;
            ensure!(short.insert(name.clone(), new).is_none(), "{name} is imported and exported");
        }
        Ok(Self { short, imports })
    }

    /// A regular expression that fits these names and no others.
    fn pattern(&self) -> String {
        let names: Vec<String> = self.short.keys().map(|name| name.replace('.', r"\.").replace('$', r"\$")).collect();
        format!("^({})$", names.join("|"))
    }
}

fn texts<const N: usize>(row: &Value) -> Result<[String; N]> {
    let row = row.as_array().context("a name that is no row")?;
    let texts: Vec<String> = row.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    texts.try_into().map_err(|_| anyhow!("a row of names that does not have {N} texts"))
}
/// What the glue sees in place of the page's globals of these names, and the functions that the crate imports (`built-ins.js`).
const BUILT_INS: &str = "builtIns, DataView, FinalizationRegistry, JSON, Reflect, TextDecoder, TextEncoder, Uint8Array";

/// The name that wasm-opt has given to one of the exports.
pub(super) fn short_name(printed: &str, name: &str) -> Result<String> {
    Names::read(printed)?.short.remove(name).with_context(|| format!("the WebAssembly exports no {name}"))
}

/// How the glue calls one of its own functions: by a method that the page can replace.
const APPLY: &str = "return f.apply(this, args);";

/// The functions that the facade calls, by their names in JavaScript.
const EXPORTS: &[&str] = &[
    "initializeSession",
    "fetchToken",
    "getDPoPToken",
    "messageSignature",
    "getExpiries",
    "authorize",
    "renew",
    "refuse",
    "adopt",
    "timeLeft",
];

/// The generated glue as a function that makes a fresh one.
///
/// As generated, the glue is a module with state: it can serve one instance of the WebAssembly for as long as the page lives, and
/// an instance that has trapped could not be replaced. Its own loading, at its end, is left out: the facade loads, and the glue's
/// way writes to the console and guesses a URL that bundlers would follow.
pub(super) fn factory(glue: &str) -> Result<String> {
    let body = body(glue)?;
    Ok(format!(
        "import {{ {BUILT_INS} }} from './built-ins.js'\n\n\
         /** Makes the glue of one instance. */\nexport default function makeGlue() {{\n{body}}}\n"
    ))
}

/// The same for a file that is evaluated later than the facade, which gives it the built-ins that it has captured. The glue of code without
/// WebAssembly keeps the page's objects in an array, where the other has a table.
pub(super) fn later_factory(glue: &str) -> Result<String> {
    let body = body(glue)?;
    Ok(format!(
        "/** What makes the glue of one instance, with these built-ins. */\n\
         export default ({{ {BUILT_INS}, Array }}) => function makeGlue() {{\n{body}}}\n"
    ))
}

fn body(glue: &str) -> Result<String> {
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
    Ok(format!("{inside}return {{ imports: __wbg_get_imports, start: __wbg_finalize_init, {exports} }}\n"))
}

/// `builds.js`: the build that a file has, and which one is to be used where the option `wasm` is this: another file's where WebAssembly
/// cannot be used, or where keys are wanted in its memory and this build keeps none.
pub(super) fn builds(is_whole: bool, compiles: bool) -> String {
    let (imports, whole) = if is_whole {
        ("", "own")
    } else {
        ("import { shared } from './built-ins.js'\n", "needsWhole ? (await import('./whole.js')).default(shared) : own")
    };
    let (imports, chosen) = if compiles {
        (
            format!("{imports}import {{ withoutWasm }} from './without-wasm.js'\n"),
            format!("async (given, needsWhole) => (await withoutWasm(given)) ?? ({whole})"),
        )
    } else {
        // It runs modules that it has compiled itself, and no others.
        (String::new(), "async () => own".to_owned())
    };
    format!(
        "import makeGlue from './glue.js'\nimport source from './wasm-source.js'\n{imports}\n\
         export const own = {{ __proto__: null, makeGlue, source, hasWasmKeys: {is_whole} }}\n\
         export const chosen = {chosen}\n"
    )
}

/// The entry of the whole build in a file of its own.
pub(super) const WHOLE: &str = "import makeGlueMaker from './glue.js'
import source from './wasm-source.js'

export default (shared) => ({ __proto__: null, makeGlue: makeGlueMaker(shared), source, hasWasmKeys: true })
";

/// Everything from here on is the glue's own loader, which the facade replaces.
const LOADING: &str = "async function __wbg_load(module, imports) {";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools;

    const PRINTED: &str = r#"{"imports": [["./a_bg.js", "__wbg_x_1", "$"]], "exports": [["f", "b"], ["f_2", "c"]]}"#;

    /// What [`rename`] makes of a piece of glue.
    fn renamed(name: &str, glue: &str, printed: &str) -> Result<String> {
        let project = Project::locate().unwrap();
        tools::ensure_npm_packages(&project.npm_tools()).unwrap();
        let directory = std::env::temp_dir().join(format!("approov-xtask-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("approov.js");
        fs::write(&file, glue).unwrap();
        let renamed = rename(&project, &file, printed).map(|()| fs::read_to_string(&file).unwrap());
        fs::remove_dir_all(&directory).unwrap();
        renamed
    }

    #[test]
    fn what_glue_and_webassembly_share_takes_the_short_names_and_nothing_else_does() {
        let glue = "export function f(a) { return wasm.f(a, wasm.f_2, 'f', f.f_3) }\nconst import0 = { __wbg_x_1: function() {} }\nconst all = { \"./a_bg.js\": import0 }\n";
        let expected = "export function f(a) {\n  return wasm.b(a, wasm.c, \"f\", f.f_3);\n}\nconst import0 = { $: function() {\n} };\nconst all = { a: import0 };\n";
        assert_eq!(renamed("names", glue, PRINTED).unwrap(), expected);
    }

    #[test]
    fn glue_that_keeps_an_import_under_its_long_name_is_an_error() {
        let error = renamed("kept", "const text = '__wbg_x_1'\n", PRINTED).unwrap_err();
        assert!(error.to_string().contains("__wbg_x_1"), "{error}");
    }

    #[test]
    fn a_name_that_would_mean_two_things_is_an_error() {
        let printed = PRINTED.replace("f_2", "__wbg_x_1");
        assert!(Names::read(&printed).is_err());
        assert!(Names::read(r#"{"imports": [], "exports": []}"#).is_err());
    }

    const GLUE: &str = "\
export function initializeSession(options) {}
export function fetchToken(api, options) {}
export function getDPoPToken(method) {}
export function messageSignature(message) {}
export function getExpiries() {}
export function authorize(api) {}
export function renew(options) {}
export function refuse(token) {}
export function adopt(record) {}
export function timeLeft() {}
function handleError(f, args) { return f.apply(this, args); }
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
        let factory = factory(GLUE).unwrap();
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
            assert!(factory(&GLUE.replacen(part, other, 1)).is_err(), "{part}");
        }
    }
}
