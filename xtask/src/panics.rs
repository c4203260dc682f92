//! Panics without words: what Rust would say of a panic goes nowhere in a browser, so the shipped WebAssembly traps at once.
//!
//! The standard library comes compiled, with machinery that formats a message and hands it to a hook. The facade shows none of it:
//! it sees the trap, and replaces the instance. Here the bodies of those functions become `unreachable`, and wasm-opt then drops all
//! that served them. Nothing else may have used that machinery: a call from a function that stays is an error of the build.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, Function, Module};
use wasmparser::{KnownCustom, Name, Operator, Parser, Payload, TypeRef};

/// Parts of the names of functions that begin or carry out a panic. They never return.
const PANICS: &[&str] = &[
    "core::panicking::",
    "core::cell::panic_",
    "core::cell::lazy::panic_",
    "core::option::expect_failed",
    "core::option::unwrap_failed",
    "core::result::unwrap_failed",
    "core::slice::index::slice_index_fail",
    "core::slice::copy_from_slice_impl::len_mismatch_fail",
    "alloc::alloc::handle_alloc_error",
    "alloc::raw_vec::handle_error",
    "std::panicking::",
    "std::thread::local::panic_access_error",
    "std::sync::lazy_lock::panic_",
    "std::alloc::rust_oom",
    "std::alloc::default_alloc_error_hook",
    "__rustc::rust_begin_unwind",
    "__rustc::__rust_alloc_error_handler",
];

/// Parts of the names of functions that format. Only panics use them, by way of tables that no optimiser looks into.
const FORMATTING: &[&str] = &["core::fmt::"];

/// The same module with panics that trap at once. The module must have its names.
pub(crate) fn without_words(wasm: &[u8]) -> Result<Vec<u8>> {
    let functions = Functions::read(wasm)?;
    let panics = functions.named(PANICS);
    ensure!(!panics.is_empty(), "the WebAssembly has no function that panics: has it lost its names?");
    let formatting = functions.named(FORMATTING);
    for (caller, callees) in &functions.calls {
        if panics.contains(caller) || formatting.contains(caller) {
            continue;
        }
        if let Some(callee) = callees.iter().find(|callee| formatting.contains(callee) && !panics.contains(callee)) {
            let name = |function| functions.names.get(function).map_or("a function without a name", String::as_str);
            anyhow::bail!("{} formats text ({}), which the shipped WebAssembly cannot", name(caller), name(callee));
        }
    }
    let mut module = Module::new();
    Trapping { bodies: &panics | &formatting, next: functions.imported }
        .parse_core_module(&mut module, Parser::new(0), wasm)
        .context("writing the WebAssembly")?;
    Ok(module.finish())
}

/// What a module says of its functions; the imported ones come first.
#[derive(Default)]
struct Functions {
    imported: u32,
    names: BTreeMap<u32, String>,
    calls: BTreeMap<u32, BTreeSet<u32>>,
}

impl Functions {
    fn read(wasm: &[u8]) -> Result<Self> {
        let mut functions = Self::default();
        let mut next = 0_u32;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.context("reading the WebAssembly")? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        if matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) {
                            functions.imported = functions.imported.saturating_add(1);
                        }
                    }
                    next = functions.imported;
                }
                Payload::CodeSectionEntry(body) => {
                    let callees = functions.calls.entry(next).or_default();
                    for operator in body.get_operators_reader()? {
                        if let Operator::Call { function_index } | Operator::ReturnCall { function_index } = operator? {
                            callees.insert(function_index);
                        }
                    }
                    next = next.saturating_add(1);
                }
                Payload::CustomSection(section) => {
                    if let KnownCustom::Name(names) = section.as_known() {
                        functions.read_names(names)?;
                    }
                }
                _ => {}
            }
        }
        Ok(functions)
    }

    fn read_names(&mut self, sections: wasmparser::NameSectionReader<'_>) -> Result<()> {
        for section in sections {
            if let Name::Function(names) = section? {
                for naming in names {
                    let naming = naming?;
                    self.names.insert(naming.index, without_hashes(naming.name));
                }
            }
        }
        Ok(())
    }

    fn named(&self, parts: &[&str]) -> BTreeSet<u32> {
        let is_meant = |name: &str| parts.iter().any(|part| name.contains(part));
        self.names.iter().filter(|(_, name)| is_meant(name)).map(|(&index, _)| index).collect()
    }
}

/// `core::fmt::write` for `core[c5930c85a12de822]::fmt::write`.
fn without_hashes(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, bracketed)) = rest.split_once('[') {
        plain.push_str(before);
        match bracketed.split_once(']') {
            Some((hash, after)) if !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                rest = after
            }
            _ => {
                plain.push('[');
                rest = bracketed;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Copies a module, but for some bodies.
struct Trapping {
    bodies: BTreeSet<u32>,
    next: u32,
}

impl Reencode for Trapping {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        let index = self.next;
        self.next = index.saturating_add(1);
        if self.bodies.contains(&index) {
            let mut trap = Function::new([]);
            trap.instructions().unreachable().end();
            code.function(&trap);
            return Ok(());
        }
        reencode::utils::parse_function_body(self, code, body)
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{ExportKind, ExportSection, FunctionSection, NameMap, NameSection, TypeSection};

    use super::*;

    /// A module of functions without parameters, each with its name and what it calls.
    fn module(functions: &[(&str, &[u32])]) -> Vec<u8> {
        let (mut types, mut section, mut exports) = (TypeSection::new(), FunctionSection::new(), ExportSection::new());
        let (mut code, mut names, mut map) = (CodeSection::new(), NameSection::new(), NameMap::new());
        types.ty().function([], []);
        for (index, (name, callees)) in (0..).zip(functions) {
            section.function(0);
            exports.export(&index.to_string(), ExportKind::Func, index);
            map.append(index, name);
            let mut body = Function::new([]);
            for &callee in *callees {
                body.instructions().call(callee);
            }
            body.instructions().end();
            code.function(&body);
        }
        names.functions(&map);
        let mut module = Module::new();
        module.section(&types).section(&section).section(&exports).section(&code).section(&names);
        module.finish()
    }

    fn bodies(wasm: &[u8]) -> Vec<Vec<String>> {
        let code = Parser::new(0).parse_all(wasm).filter_map(|payload| match payload.unwrap() {
            Payload::CodeSectionEntry(body) => Some(body),
            _ => None,
        });
        code.map(|body| {
            body.get_operators_reader()
                .unwrap()
                .into_iter()
                .map(|operator| format!("{:?}", operator.unwrap()))
                .collect()
        })
        .collect()
    }

    #[test]
    fn panics_and_their_formatting_trap_and_all_else_stays() {
        let wasm = module(&[
            ("approov::work", &[1]),
            ("core[c5930c85a12de822]::panicking::panic_fmt", &[2]),
            ("<u8 as core[c5930c85a12de822]::fmt::Display>::fmt", &[]),
        ]);
        let trapping = bodies(&without_words(&wasm).unwrap());
        assert_eq!(
            trapping,
            [vec!["Call { function_index: 1 }", "End"], vec!["Unreachable", "End"], vec!["Unreachable", "End"]]
        );
    }

    #[test]
    fn a_function_that_formats_for_itself_fails_the_build() {
        let wasm = module(&[("core::panicking::panic", &[]), ("core::fmt::write", &[]), ("approov::text", &[1])]);
        let error = without_words(&wasm).unwrap_err().to_string();
        assert!(error.contains("approov::text formats text (core::fmt::write)"), "{error}");
    }

    #[test]
    fn a_module_without_names_fails_the_build() {
        assert!(without_words(&module(&[])).is_err());
    }

    #[test]
    fn only_hashes_are_taken_from_names() {
        assert_eq!(without_hashes("<[u8] as core[c593]::fmt::Debug>::fmt"), "<[u8] as core::fmt::Debug>::fmt");
        assert_eq!(without_hashes("a[b"), "a[b");
    }
}
