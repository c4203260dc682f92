//! `approov.compat.js`: the WebAssembly as JavaScript, for pages that have none or whose content security policy forbids it.
//!
//! ```text
//!  compiled ─without reference types─▶ wasm-bindgen ─▶ trap_panics ─▶ wasm-merge ─▶ wasm-opt (lowered) ─▶ wasm2js ─▶ asm.js
//!                                          └─▶ generated glue ─▶ the short names ─▶ glue.js
//! ```
//!
//! It is made of the same compiled code as the default entry. wasm2js knows the WebAssembly of 2017 alone: what came later is lowered, and
//! wasm-bindgen keeps the page's objects in an array of the glue's, as it did before there were reference types.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CustomSection, Module};
use wasmparser::{CustomSectionReader, Operator, Parser, Payload};

use super::wasm_text::with_appendix;
use super::{WASM_OPT, WASM_STRIP, glue, recreate, trap_panics};
use crate::process::{output, run};
use crate::project::Project;
use crate::tools::WASM_BINDGEN;

/// The features that wasm-bindgen may count on.
const BOUND_FEATURES: &[&str] = &["bulk-memory", "mutable-globals", "nontrapping-fptoint", "sign-ext"];

/// The same in binaryen's words.
const FEATURES: &[&str] =
    &["--enable-bulk-memory", "--enable-mutable-globals", "--enable-nontrapping-float-to-int", "--enable-sign-ext"];

/// The stack ends where WebAssembly would trap for the address of what is beyond: at its beginning, but for the first kilobyte, which
/// `--low-memory-unused` counts on. In JavaScript, what is beyond would be lost without a word.
const STACK_LIMIT: u32 = 1024;
const STACK_CHECK: &str = "--stack-check";
/// What sets base and limit of the stack in a module with checks.
const SET_STACK_LIMITS: &str = "__set_stack_limits";

/// What makes WebAssembly of 2017 of it.
const LOWERING: &[&str] =
    &["--llvm-memory-copy-fill-lowering", "--llvm-nontrapping-fptoint-lowering", "--signext-lowering"];

/// Where the wasm-bindgen crate is compiled for reference types, it asks for the end of the objects that are never dropped. Without
/// such a table they are its four constants (undefined, null, true, false), after 1,024 borrowed ones: `JSIDX_RESERVED` in its source.
const STATICS: &str = "(module (func (export \"__wbindgen_externref_statics_end\") (result i32) (i32.const 1028)))\n";
const STATICS_MODULE: &str = "__wbindgen_externref_xform__";

/// The built-ins that wasm2js's code uses, which it gets as arguments: `shared` in `built-ins.js`.
const BUILT_INS: &[&str] = &[
    "ArrayBuffer",
    "Int8Array",
    "Int16Array",
    "Int32Array",
    "Uint8Array",
    "Uint16Array",
    "Uint32Array",
    "Float32Array",
    "Float64Array",
    "Math",
    "Object",
];

/// `entry.js` of the file: all that the others export, and what they import of it.
const ENTRY: &str = "export * from './one-file.js'\nexport { engine } from './compat.js'\n";
/// Its name.
pub(super) const ENTRY_FILE: &str = "entry.js";

/// Where the translated function is until the bundle is made.
const MINIFIED: &str = "asm-function.min.js";

/// `builds.js` of the file.
const BUILDS: &str = "\
import { shared } from './built-ins.js'
import { engine } from './compat.js'

export const own = engine(shared)
export const chosen = async () => own
";

/// Writes the sources of the file that are made of what cargo has compiled.
pub(super) fn translate(project: &Project, compiled: &Path, directory: &Path, sources: &Path) -> Result<()> {
    let work = directory.join("translation");
    recreate(&work)?;
    let plain = work.join("plain.wasm");
    fs::write(&plain, without_reference_types(&fs::read(compiled)?)?)?;
    run(Command::new(WASM_BINDGEN.program()?)
        .args(["--target", "web", "--no-typescript", "--out-name", "approov", "--out-dir"])
        .arg(&work)
        .arg(&plain))?;
    let trapping = work.join("trapping.wasm");
    fs::write(&trapping, trap_panics::trap_panics(&fs::read(work.join("approov_bg.wasm"))?)?)?;

    let (statics, merged) = (work.join("statics.wat"), work.join("merged.wasm"));
    fs::write(&statics, STATICS)?;
    run(Command::new(project.npm_program("wasm-merge"))
        .args(FEATURES)
        .arg("--debuginfo")
        .arg(&trapping)
        .arg("approov")
        .arg(&statics)
        .arg(STATICS_MODULE)
        .arg("-o")
        .arg(&merged))?;
    let (lowered, checked, stripped) =
        (work.join("lowered.wasm"), work.join("checked.wasm"), work.join("stripped.wasm"));
    let wasm_opt = project.npm_program("wasm-opt");
    run(Command::new(&wasm_opt).args(FEATURES).args(LOWERING).args(WASM_OPT).arg(&merged).arg("-o").arg(&lowered))?;
    run(Command::new(&wasm_opt).args([STACK_CHECK, "--debuginfo"]).arg(&lowered).arg("-o").arg(&checked))?;
    let names = output(Command::new(&wasm_opt).args(WASM_STRIP).arg(&checked).arg("-o").arg(&stripped))?;
    let script = work.join("asm.js");
    run(Command::new(project.npm_program("wasm2js"))
        .args(["-Oz", "--emscripten"])
        .arg(&stripped)
        .arg("-o")
        .arg(&script))?;

    let javascript = work.join("approov.js");
    fs::write(&javascript, without_statics(&fs::read_to_string(&javascript)?)?)?;
    glue::rename(project, &javascript, &names)?;
    fs::write(sources.join("glue.js"), glue::later_factory(&fs::read_to_string(&javascript)?)?)?;
    let set_stack_limits = glue::short_name(&names, SET_STACK_LIMITS)?;
    fs::write(sources.join("asm.js"), asm(&set_stack_limits, stack_base(&fs::read(&lowered)?)?))?;
    let function = sources.join("asm-function.js");
    fs::write(&function, asm_function(&fs::read_to_string(&script)?)?)?;
    let minified = directory.join(MINIFIED);
    run(Command::new(project.npm_program("esbuild"))
        .arg(&function)
        .args(["--target=es2022", "--minify", "--log-level=warning"])
        .arg(format!("--outfile={}", minified.display())))?;
    fs::write(sources.join("builds.js"), BUILDS)?;
    fs::write(sources.join(ENTRY_FILE), ENTRY).context("writing the entry")
}

/// `asm.js` of the file. The function that it calls is behind everything that the source map covers.
fn asm(set_stack_limits: &str, stack_base: i32) -> String {
    format!(
        "export default (builtIns) => (imports) => {{\n\
         \x20 const exports = approovAsm(builtIns)(imports)\n\
         \x20 exports.{set_stack_limits}({stack_base}, {STACK_LIMIT})\n\
         \x20 return exports\n\
         }}\n"
    )
}

/// Where the stack begins, from which it grows down: the first value of the stack pointer, which is the first global.
fn stack_base(wasm: &[u8]) -> Result<i32> {
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::GlobalSection(globals) = payload? {
            let global = globals.into_iter().next().context("the WebAssembly has no globals")??;
            if let (true, Some(Ok(Operator::I32Const { value }))) =
                (global.ty.mutable, global.init_expr.get_operators_reader().into_iter().next())
            {
                return Ok(value);
            }
        }
    }
    bail!("the WebAssembly has no stack pointer")
}

/// The same module without a word of reference types among its features, so that wasm-bindgen uses none.
fn without_reference_types(wasm: &[u8]) -> Result<Vec<u8>> {
    let mut module = Module::new();
    let mut features = Features { found: false };
    features.parse_core_module(&mut module, Parser::new(0), wasm).context("writing the WebAssembly")?;
    ensure!(features.found, "the WebAssembly does not say which features it has");
    Ok(module.finish())
}

struct Features {
    found: bool,
}

impl Reencode for Features {
    type Error = std::convert::Infallible;

    fn parse_custom_section(
        &mut self,
        module: &mut Module,
        section: CustomSectionReader<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        if section.name() != "target_features" {
            return reencode::utils::parse_custom_section(self, module, section);
        }
        self.found = true;
        module.section(&CustomSection { name: "target_features".into(), data: bound_features().into() });
        Ok(())
    }
}

/// The contents of the section: how many, and each with a sign and its length. All numbers are below 128, and so one byte.
fn bound_features() -> Vec<u8> {
    let length = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
    let mut section = vec![length(BOUND_FEATURES.len())];
    for feature in BOUND_FEATURES {
        section.extend([b'+', length(feature.len())]);
        section.extend(feature.bytes());
    }
    section
}

/// The glue without the import that wasm-merge has resolved.
fn without_statics(glue: &str) -> Result<String> {
    let import = format!("import * as import1 from \"{STATICS_MODULE}\"\n");
    let member = format!("        \"{STATICS_MODULE}\": import1,\n");
    ensure!(
        glue.matches(&import).count() == 1 && glue.matches(&member).count() == 1,
        "the generated glue does not import {STATICS_MODULE} as expected"
    );
    Ok(glue.replace(&import, "").replace(&member, ""))
}

/// The bundle with what [`asm`] calls, which is not in the source map.
pub(super) fn with_asm(bundle: &str, directory: &Path) -> Result<String> {
    let minified = directory.join(MINIFIED);
    let asm = fs::read_to_string(&minified).with_context(|| format!("reading {}", minified.display()))?;
    with_appendix(bundle, &asm)
}

/// What wasm2js has written, as a function that takes its built-ins as arguments.
fn asm_function(script: &str) -> Result<String> {
    ensure!(script.starts_with("function instantiate(info) {"), "wasm2js does not begin as expected");
    for part in script.split("new ").skip(1) {
        let class = part.split(|sign: char| !sign.is_alphanumeric()).next().unwrap_or_default();
        ensure!(BUILT_INS.contains(&class) || class == "Error", "wasm2js uses the built-in {class}");
    }
    let built_ins = BUILT_INS.join(", ");
    Ok(format!("function approovAsm({{ {built_ins} }}) {{\n{script}\nreturn instantiate\n}}\n"))
}

/// The beginning of the address that no bundler shall follow, in `without-wasm.js`.
const UNFOLLOWED: &str = "import(`@compat-not-followed-by-any-bundler---";
/// What says so to bundlers. esbuild drops comments; as long as the mark, it leaves the source map right.
const UNFOLLOWED_COMMENT: &str = "import(/*webpackIgnore:true*//*@vite-ignore*/`";

/// A bundle with the comments that keep bundlers from following its second import.
pub(super) fn with_unfollowed_import(bundle: &str) -> Result<String> {
    ensure!(bundle.matches(UNFOLLOWED).count() == 1, "the bundle does not try again to load {}", super::COMPAT);
    Ok(bundle.replace(UNFOLLOWED, UNFOLLOWED_COMMENT))
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{ConstExpr, GlobalSection, GlobalType, ValType};

    use super::*;

    fn features_of(wasm: &[u8]) -> Vec<Vec<u8>> {
        Parser::new(0)
            .parse_all(wasm)
            .filter_map(|payload| match payload.unwrap() {
                Payload::CustomSection(section) if section.name() == "target_features" => Some(section.data().to_vec()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_features_lack_reference_types_and_all_else_stays() {
        let mut module = Module::new();
        module.section(&CustomSection { name: "other".into(), data: b"kept".into() });
        let none = module.clone().finish();
        module.section(&CustomSection { name: "target_features".into(), data: b"\x01+\x0freference-types".into() });
        let plain = without_reference_types(&module.finish()).unwrap();
        assert_eq!(
            features_of(&plain),
            [b"\x04+\x0bbulk-memory+\x0fmutable-globals+\x13nontrapping-fptoint+\x08sign-ext".to_vec()]
        );
        assert!(plain.windows(4).any(|bytes| bytes == b"kept"));
        assert!(without_reference_types(&none).is_err());
    }

    #[test]
    fn the_glue_loses_the_resolved_import_and_nothing_else() {
        let glue = format!(
            "import * as import1 from \"{STATICS_MODULE}\"\nreturn {{\n        \"{STATICS_MODULE}\": import1,\n}}\n"
        );
        assert_eq!(without_statics(&glue).unwrap(), "return {\n}\n");
        assert!(without_statics(&glue.replace("import1,", "import2,")).is_err());
    }

    #[test]
    fn translated_code_takes_its_built_ins_as_arguments_and_may_use_no_others() {
        let script = "function instantiate(info) { return new Int8Array(new ArrayBuffer(1)) }";
        let function = asm_function(script).unwrap();
        assert!(
            function.starts_with("function approovAsm({ ArrayBuffer, Int8Array,")
                && function.ends_with("}\nreturn instantiate\n}\n")
        );
        assert!(asm_function(&script.replace("Int8Array", "BigInt64Array")).is_err());
        assert!(asm_function("import * as a from 'a'").is_err());
    }

    #[test]
    fn the_stack_begins_where_its_pointer_does() {
        let mut globals = GlobalSection::new();
        let pointer = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
        globals.global(pointer, &ConstExpr::i32_const(4096));
        let mut module = Module::new();
        assert!(stack_base(&module.clone().finish()).is_err());
        module.section(&globals);
        assert_eq!(stack_base(&module.finish()).unwrap(), 4096);
    }

    #[test]
    fn the_mark_becomes_comments_of_the_same_length() {
        let bundle = format!("{UNFOLLOWED}${{a}}`)");
        let commented = with_unfollowed_import(&bundle).unwrap();
        assert_eq!(commented, "import(/*webpackIgnore:true*//*@vite-ignore*/`${a}`)");
        assert_eq!(commented.len(), bundle.len());
        assert!(with_unfollowed_import("import('a')").is_err());
        let source = Project::locate().unwrap().root.join("pkg-template/without-wasm.js");
        assert_eq!(fs::read_to_string(source).unwrap().matches(UNFOLLOWED).count(), 1);
    }

    #[test]
    fn the_built_ins_of_translated_code_are_those_that_the_facade_gives() {
        let source = Project::locate().unwrap().root.join("pkg-template/built-ins.js");
        let source = fs::read_to_string(source).unwrap();
        let (_, shared) = source.split_once("export const shared = own({").unwrap();
        let (shared, _) = shared.split_once("})").unwrap();
        // `compat.js` has an `Object` of its own.
        for name in BUILT_INS.iter().filter(|name| **name != "Object") {
            assert!(shared.lines().any(|line| line.trim_start().split([':', ',']).next() == Some(name)), "{name}");
        }
    }
}
