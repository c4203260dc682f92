//! The packages of the verifier: `approov-verify` for npm (the crate as WebAssembly) and for PyPI (the crate as an extension).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{copy, copy_directory, recreate, without_machine_paths};
use crate::process::run;
use crate::project::Project;
use crate::tools::{self, WASM_BINDGEN};

/// What the WebAssembly is called next to the JavaScript.
const WASM: &str = "approov_verify_bg.wasm";

/// Below the root: what is built here.
const DIST: &str = "dist-verify";

/// The npm package, unpacked.
pub(crate) fn npm_package(project: &Project) -> PathBuf {
    project.root.join(DIST).join("npm")
}

/// Builds both.
pub(crate) fn build(project: &Project) -> Result<()> {
    build_npm(project)?;
    let wheel = build_wheel(project)?;
    println!("\n{}\n{}", npm_package(project).display(), wheel.display());
    Ok(())
}

/// The requirements of what builds and tests the Python package.
pub(crate) fn python_requirements(project: &Project) -> PathBuf {
    project.root.join("verify/python/requirements.txt")
}

/// Builds the npm package and its tarball.
pub(crate) fn build_npm(project: &Project) -> Result<()> {
    tools::ensure_wasm_target(project)?;
    tools::ensure_cargo_tools(&[&WASM_BINDGEN])?;
    tools::ensure_npm_packages(&project.npm_tools())?;
    let target = ["--target", "wasm32-unknown-unknown", "--profile", "wasm-verify", "-p", "approov-verify-npm"];
    run(project.cargo().arg("build").args(target).args(without_machine_paths()?))?;
    let compiled = project.target.join("wasm32-unknown-unknown/wasm-verify/approov_verify_npm.wasm");

    let bindings = project.target.join("package/verify-bindings");
    recreate(&bindings)?;
    run(Command::new(WASM_BINDGEN.program()?)
        .args(["--target", "web", "--no-typescript", "--out-name", "approov_verify", "--out-dir"])
        .arg(&bindings)
        .arg(&compiled))?;
    let optimised = bindings.join("optimised.wasm");
    run(Command::new(project.npm_program("wasm-opt"))
        .args(super::FEATURES)
        .args(["-O3", "--strip-debug", "--strip-producers"])
        .arg(bindings.join(WASM))
        .arg("-o")
        .arg(&optimised))?;

    let package = npm_package(project);
    let sources = project.root.join("verify/npm");
    copy_directory(&sources.join("js"), &package)?;
    copy(&bindings.join("approov_verify.js"), &package.join("glue.js"))?;
    copy(&optimised, &package.join(WASM))?;
    let text = STANDARD.encode(fs::read(&optimised).with_context(|| format!("reading {}", optimised.display()))?);
    let module = package.join("wasm.js");
    fs::write(&module, format!("export const WASM =\n  '{text}'\n"))
        .with_context(|| format!("writing {}", module.display()))?;
    copy(&sources.join("README.md"), &package.join("README.md"))?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&project.root.join(licence), &package.join(licence))?;
    }
    run(Command::new("npm").args(["pkg", "set", &format!("version={}", project.version)]).current_dir(&package))?;
    let destination = project.root.join(DIST);
    run(Command::new("npm").args(["pack", "--silent", "--pack-destination"]).arg(&destination).current_dir(&package))?;
    let tarball = destination.join(format!("approov-verify-{}.tgz", project.version));
    ensure!(tarball.is_file(), "npm pack did not write {}", tarball.display());
    Ok(())
}

/// Builds the wheel, with the maturin of the virtual environment.
pub(crate) fn build_wheel(project: &Project) -> Result<PathBuf> {
    let python = tools::ensure_python_packages(project, "python-verify", &[python_requirements(project)])?;
    let destination = project.root.join(DIST).join("pypi");
    recreate(&destination)?;
    run(Command::new(&python)
        .args(["-m", "maturin", "build", "--release", "--quiet", "--out"])
        .arg(&destination)
        .current_dir(project.root.join("verify/python"))
        .env("CARGO_TARGET_DIR", project.target.join("python-extension")))?;
    wheel_in(&destination)
}

fn wheel_in(directory: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    anyhow::bail!("maturin wrote no wheel to {}", directory.display())
}

/// Builds the wheel and installs it into its virtual environment, whose Python is returned.
pub(crate) fn install_wheel(project: &Project) -> Result<PathBuf> {
    let wheel = build_wheel(project)?;
    let python = tools::ensure_python_packages(project, "python-verify", &[python_requirements(project)])?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    run(Command::new(&python).args(install).arg(wheel))?;
    Ok(python)
}

/// Builds the npm package and makes it the `approov-verify` of a directory's `node_modules`, installed before.
pub(crate) fn link_npm_package(project: &Project, directory: &Path) -> Result<()> {
    build_npm(project)?;
    let link = directory.join("node_modules/approov-verify");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", link.display()));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(npm_package(project), &link).with_context(|| format!("linking {}", link.display()))
}
