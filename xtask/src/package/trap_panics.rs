//! Makes panics trap without formatting a message: a browser shows nobody what Rust would print.
//!
//! The standard library comes compiled, with machinery that formats a message and hands it to a hook. The facade shows none of it:
//! it sees the trap, and replaces the instance. Here the bodies of those functions become `unreachable`, and wasm-opt then drops all
//! that served them. It is what wasm-snip did (rustwasm/wasm-snip, archived); rustc itself can do it on nightly only, with
//! `-Zbuild-std` and `panic=immediate-abort`. Nothing else may have used that machinery: a direct call from a function that stays,
//! and an entry of the function table that is not known to be a panic's, are errors of the build. The places in the source that
//! panics would have named are blanked.
//!
//! The names below are private to the standard library, and so are the forms of a location and of a name: another release of Rust
//! may change any of them, and what this pass then misses is larger or, worse, traps where it should not. So the toolchain is
//! pinned to one release ([`crate::tools::RUST`]) and raised by hand: "Another Rust toolchain" in CONTRIBUTING.md.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, Function, Module};
use wasmparser::{DataKind, ElementItems, KnownCustom, Name, Operator, Parser, Payload, TypeRef};

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
    "std::panicking::begin_panic",
    "std::panicking::panic_handler",
    "std::panicking::panic_with_hook",
    "std::thread::local::panic_access_error",
    "std::sync::lazy_lock::panic_",
    "std::alloc::rust_oom",
    "std::alloc::default_alloc_error_hook",
    "__rustc::rust_begin_unwind",
    "__rustc::__rust_alloc_error_handler",
];

/// Parts of the names of functions that format. Only panics use them.
const FORMATTING: &[&str] = &["core::fmt::"];

/// The functions that format and are in the function table, which no optimiser looks into, because a panic's message may be made by
/// them: numbers, names and errors in the standard library's own messages, and the text it collects them in.
const FORMATTING_IN_TABLE: &[&str] = &[
    "<&dyn core::fmt::Debug as core::fmt::Debug>::fmt",
    "<&str as core::fmt::Display>::fmt",
    "<&u8 as core::fmt::Debug>::fmt",
    "<&usize as core::fmt::Debug>::fmt",
    "<alloc::string::String as core::fmt::Write>::write_char",
    "<alloc::string::String as core::fmt::Write>::write_fmt",
    "<alloc::string::String as core::fmt::Write>::write_str",
    "<core::cell::BorrowError as core::fmt::Display>::fmt",
    "<core::cell::BorrowMutError as core::fmt::Display>::fmt",
    "<core::fmt::Arguments as core::fmt::Display>::fmt",
    "<std::thread::local::AccessError as core::fmt::Debug>::fmt",
    "<u32 as core::fmt::Display>::fmt",
];

/// The same module with panics that trap. The module must have its names.
pub(crate) fn trap_panics(wasm: &[u8]) -> Result<Vec<u8>> {
    let functions = Functions::read(wasm)?;
    let panics = functions.named(PANICS);
    ensure!(!panics.is_empty(), "the WebAssembly has no function that panics: has it lost its names?");
    let formatting = functions.named(FORMATTING);
    let name = |function| functions.names.get(function).map_or("a function without a name", String::as_str);
    for (caller, callees) in &functions.calls {
        if panics.contains(caller) || formatting.contains(caller) {
            continue;
        }
        if let Some(callee) = callees.iter().find(|callee| formatting.contains(callee) && !panics.contains(callee)) {
            bail!("{} formats text ({}), which the shipped WebAssembly cannot", name(caller), name(callee));
        }
    }
    // These could be called by whoever has a `dyn Display`, without a direct call to anything that formats.
    let unknown: Vec<&str> = formatting
        .iter()
        .filter(|function| functions.in_table.contains(function) && !panics.contains(function))
        .map(name)
        .filter(|name| !FORMATTING_IN_TABLE.contains(name))
        .collect();
    ensure!(
        unknown.is_empty(),
        "in the function table are functions that format, which the shipped WebAssembly cannot, and that no panic is known to use:\n  {}",
        unknown.join("\n  ")
    );
    let mut module = Module::new();
    Trapping { bodies: &panics | &formatting, next: functions.imported }
        .parse_core_module(&mut module, Parser::new(0), wasm)
        .context("writing the WebAssembly")?;
    let mut wasm = module.finish();
    blank_locations(&mut wasm)?;
    Ok(wasm)
}

/// Zeroes what `core::panic::Location` describes: the address and length of a file's name, line and column, and the name.
///
/// Nothing marks a location in the data, so it is known by its form: four aligned words, of which the first two are where a text is
/// that is nothing but the name of a Rust source file, and the others are a plausible line and column. Data of another kind would
/// have to point to such a name; code that reads one at run time would get zeros.
fn blank_locations(wasm: &mut [u8]) -> Result<()> {
    let segments = data_segments(wasm)?;
    let range = |address: u32, length: u32| {
        segments.iter().find_map(|(start, range)| {
            let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
            let begin = range.start.checked_add(offset)?;
            let end = begin.checked_add(usize::try_from(length).ok()?)?;
            (end <= range.end).then_some(begin..end)
        })
    };
    let mut blank = Vec::new();
    for (start, segment) in &segments {
        let addresses = segment.clone().filter(|at| (at - segment.start + *start as usize).is_multiple_of(4));
        for at in addresses {
            let Some(location) = wasm.get(at..at + 16).filter(|_| at + 16 <= segment.end) else { break };
            let word = |index: usize| {
                location
                    .get(4 * index..)
                    .and_then(|bytes| bytes.first_chunk())
                    .map_or(0, |word| u32::from_le_bytes(*word))
            };
            if !(5..200).contains(&word(1)) || !(1..100_000).contains(&word(2)) || !(1..1_000).contains(&word(3)) {
                continue;
            }
            let Some(name) = range(word(0), word(1)) else { continue };
            if wasm.get(name.clone()).is_some_and(is_source_file) {
                blank.extend([at..at + 16, name]);
            }
        }
    }
    ensure!(
        !blank.is_empty(),
        "the WebAssembly has no location in its source: do they look different in this release of Rust?"
    );
    for range in blank {
        if let Some(bytes) = wasm.get_mut(range) {
            bytes.fill(0);
        }
    }
    Ok(())
}

/// The addresses of the data, and where it is in the file.
fn data_segments(wasm: &[u8]) -> Result<Vec<(u32, Range<usize>)>> {
    let mut segments = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::DataSection(section) = payload? {
            for segment in section {
                let segment = segment?;
                if let DataKind::Active { offset_expr, .. } = segment.kind
                    && let Some(Ok(Operator::I32Const { value })) =
                        offset_expr.get_operators_reader().into_iter().next()
                {
                    let end = usize::try_from(segment.range.end)?;
                    segments.push((value.cast_unsigned(), end - segment.data.len()..end));
                }
            }
        }
    }
    Ok(segments)
}

fn is_source_file(name: &[u8]) -> bool {
    name.ends_with(b".rs") && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(byte))
}

/// The functions of a module; the imported ones come first.
#[derive(Default)]
struct Functions {
    imported: u32,
    names: BTreeMap<u32, String>,
    calls: BTreeMap<u32, BTreeSet<u32>>,
    /// Those that can be called indirectly.
    in_table: BTreeSet<u32>,
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
                Payload::ElementSection(section) => {
                    for element in section {
                        functions.read_table(element?.items)?;
                    }
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

    fn read_table(&mut self, items: ElementItems<'_>) -> Result<()> {
        match items {
            ElementItems::Functions(functions) => {
                for function in functions {
                    self.in_table.insert(function?);
                }
            }
            ElementItems::Expressions(_, expressions) => {
                for expression in expressions {
                    for operator in expression?.get_operators_reader() {
                        if let Operator::RefFunc { function_index } = operator? {
                            self.in_table.insert(function_index);
                        }
                    }
                }
            }
        }
        Ok(())
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
        // What drops a panic's payload does not panic, and may be one with what drops something else.
        let is_meant = |name: &str| parts.iter().any(|part| name.contains(part)) && !name.contains("drop_in_place");
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
    use wasm_encoder::{
        ConstExpr, DataSection, ElementSection, Elements, ExportKind, ExportSection, FunctionSection, MemorySection,
        MemoryType, NameMap, NameSection, RefType, TableSection, TableType, TypeSection,
    };

    use super::*;

    /// A module of functions without parameters, each with its name and what it calls.
    fn module(functions: &[(&str, &[u32])]) -> Vec<u8> {
        module_with_table(functions, &[])
    }

    /// The same, with a table of some of the functions.
    fn module_with_table(functions: &[(&str, &[u32])], table: &[u32]) -> Vec<u8> {
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
        let mut memory = MemorySection::new();
        memory.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
        let mut data = DataSection::new();
        data.active(0, &ConstExpr::i32_const(START), DATA.iter().copied());
        let (mut tables, mut elements) = (TableSection::new(), ElementSection::new());
        let limits =
            TableType { minimum: 9, maximum: None, element_type: RefType::FUNCREF, table64: false, shared: false };
        tables.table(limits);
        elements.active(None, &ConstExpr::i32_const(1), Elements::Functions(table.into()));
        module.section(&types).section(&section).section(&tables).section(&memory).section(&exports).section(&elements);
        module.section(&code).section(&data);
        module.section(&names);
        module.finish()
    }

    const START: i32 = 1024;
    /// A text that is none of a panic's business, a location (the name's address and length, line 7, column 9), and the name.
    const DATA: &[u8; 36] = b"main.rs.\x18\x04\0\0\x0a\0\0\0\x07\0\0\0\x09\0\0\0src/lib.rs:)";

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
        let trapping = bodies(&trap_panics(&wasm).unwrap());
        assert_eq!(
            trapping,
            [vec!["Call { function_index: 1 }", "End"], vec!["Unreachable", "End"], vec!["Unreachable", "End"]]
        );
    }

    #[test]
    fn locations_are_blanked_and_all_other_data_stays() {
        let mut wasm = module(&[("core::panicking::panic", &[])]);
        blank_locations(&mut wasm).unwrap();
        let [(start, range)] = data_segments(&wasm).unwrap().try_into().unwrap();
        assert_eq!((start, &wasm[range]), (1024, [b"main.rs.".as_slice(), &[0; 26], b":)"].concat().as_slice()));
        assert!(blank_locations(&mut wasm).is_err());
    }

    #[test]
    fn a_function_that_formats_for_itself_fails_the_build() {
        let wasm = module(&[("core::panicking::panic", &[]), ("core::fmt::write", &[]), ("approov::text", &[1])]);
        let error = trap_panics(&wasm).unwrap_err().to_string();
        assert!(error.contains("approov::text formats text (core::fmt::write)"), "{error}");
    }

    #[test]
    fn a_function_that_formats_and_can_be_called_indirectly_fails_the_build() {
        let functions: &[(&str, &[u32])] = &[
            ("core[c593]::panicking::panic", &[]),
            ("<approov::Reason as core[c593]::fmt::Display>::fmt", &[]),
            ("<&str as core[c593]::fmt::Display>::fmt", &[]),
            ("<std[a543]::panicking::panic_handler::StaticStrPayload as core[c593]::fmt::Display>::fmt", &[]),
        ];
        let error = trap_panics(&module_with_table(functions, &[0, 1, 2, 3])).unwrap_err().to_string();
        assert!(error.ends_with("use:\n  <approov::Reason as core::fmt::Display>::fmt"), "{error}");
        assert!(trap_panics(&module_with_table(functions, &[0, 2, 3])).is_ok());
        assert!(trap_panics(&module(functions)).is_ok());
    }

    #[test]
    fn a_module_without_names_fails_the_build() {
        assert!(trap_panics(&module(&[])).is_err());
    }

    #[test]
    fn only_hashes_are_taken_from_names() {
        assert_eq!(without_hashes("<[u8] as core[c593]::fmt::Debug>::fmt"), "<[u8] as core::fmt::Debug>::fmt");
        assert_eq!(without_hashes("a[b"), "a[b");
    }
}
