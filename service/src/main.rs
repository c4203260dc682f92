//! The web protection service's command line.

use std::process::ExitCode;

use approov_web_service::cli::{self, Arg, Args, Console, Failure};
use approov_web_service::server;

/// Requests are many small allocations; this allocator makes them cheaper.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
approov-web-service serve --dev [--listen 127.0.0.1:8087] [--api DOMAIN]... [--dev-tls]
    [--secret BASE64|- | --secret-file FILE] [--session-secret BASE64|- | --session-secret-file FILE]
    [--dev-public] [--public-url URL]... [--latency MS] [--fault drop|lose|delay:MS|5xx[:STATUS]|clock:SECONDS]
approov-web-service serve --config FILE [--listen ADDRESS]
    --operations ADDRESS  where /metrics and /openapi.json are
    --json      print one line of JSON when listening
    --log-json  log lines as JSON
    --quiet     no log line per request
";

fn main() -> ExitCode {
    let mut args = Args::new(std::env::args().skip(1));
    let outcome = match args.next_arg().unwrap_or_default() {
        Some(Arg::Operand(command)) if command == "serve" => match server::Options::parse(args) {
            Ok(options) => serve(options),
            Err(error) => return usage(&error.0),
        },
        Some(Arg::Flag(flag)) if flag == "version" => {
            println!("approov-web-service {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Some(Arg::Flag(flag)) if flag == "help" || flag == "h" => {
            print!("{USAGE}{}", cli::USAGE);
            Ok(())
        }
        Some(Arg::Operand(command)) => {
            let (input, output) = (&mut std::io::stdin().lock(), &mut std::io::stdout().lock());
            match cli::run(&command, args, &mut Console { input, output }) {
                Some(Ok(())) => Ok(()),
                Some(Err(Failure::Refused(message))) => Err(message),
                Some(Err(Failure::Usage(problem))) => return usage(&problem),
                None => return usage(&format!("there is no command {command}")),
            }
        }
        _ => return usage("which command?"),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("approov-web-service: {message}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: server::Options) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(server::run(options))
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("approov-web-service: {problem}\n\n{USAGE}{}", cli::USAGE);
    ExitCode::from(2)
}
