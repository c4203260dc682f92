//! `approov-gate`: the command line.

use approov_gate::run::{self, Options};
use approov_listener::log::LogFormat;
use std::path::PathBuf;
use std::process::ExitCode;

/// Requests are many small allocations; this allocator makes them cheaper.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
approov-gate --config FILE [--listen ADDRESS] [--log-json | --quiet] [--json]
approov-gate --config FILE --check

    --config FILE     the configuration (TOML); read again on SIGHUP
    --check           read the configuration, say what is wrong with it, and end
    --listen ADDRESS  such as 127.0.0.1:8090, in place of the file's listen
    --log-json        log lines as JSON
    --quiet           no log line per request
    --json            print one line of JSON when listening
    --version, --help

Exit codes: 0 after an orderly end, 1 when something failed, 2 for wrong arguments.
";

enum Command {
    Run(Options),
    Check(PathBuf),
    Print(String),
}

fn main() -> ExitCode {
    let done = match command(lexopt::Parser::from_env()) {
        Ok(Command::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Ok(Command::Check(path)) => run::load(&path).map(|_| println!("{}: good", path.display())),
        Ok(Command::Run(options)) => start(&options),
        Err(error) => {
            eprintln!("approov-gate: {error}\nSee approov-gate --help.");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("approov-gate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(run::run(options))
}

fn command(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut config, mut listen, mut json, mut log, mut check) = (None, None, false, LogFormat::Text, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("config") => config = Some(PathBuf::from(arguments.value()?)),
            Long("listen") => listen = Some(arguments.value()?.parse()?),
            Long("check") => check = true,
            Long("json") => json = true,
            Long("log-json") => log = LogFormat::Json,
            Long("quiet") => log = LogFormat::Quiet,
            Short('h') | Long("help") => return Ok(Command::Print(USAGE.to_owned())),
            Long("version") => return Ok(Command::Print(format!("approov-gate {}\n", env!("CARGO_PKG_VERSION")))),
            other => return Err(other.unexpected()),
        }
    }
    let config = config.ok_or("--config FILE is needed")?;
    Ok(if check { Command::Check(config) } else { Command::Run(Options { config, listen, json, log }) })
}
