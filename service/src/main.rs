//! The web protection service's command line.

use std::io::Write as _;
use std::process::ExitCode;

use approov_web_service::cli::{self, Arg, Args, Console, Failure};
use approov_web_service::server;

/// Requests are many small allocations; this allocator makes them cheaper.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(topic) = asked_for_help() {
        return match cli::help::help(topic.as_deref()) {
            Some(text) => {
                say(&text);
                ExitCode::SUCCESS
            }
            None => usage(&no_command(topic.as_deref().unwrap_or_default()), None),
        };
    }
    let mut args = Args::new(std::env::args().skip(1));
    let outcome = match args.next_arg().unwrap_or_default() {
        Some(Arg::Operand(command)) if command == "serve" => match server::Options::parse(args) {
            Ok(options) => serve(options),
            Err(error) => return usage(&error.0, Some("serve")),
        },
        Some(Arg::Flag(flag)) if flag == "version" => {
            say(&format!("approov-web-service {}\n", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Some(Arg::Operand(command)) => {
            let (input, output) = (&mut std::io::stdin().lock(), &mut std::io::stdout().lock());
            match cli::run(&command, args, &mut Console { input, output }) {
                Some(Ok(())) => Ok(()),
                Some(Err(Failure::Refused(message))) => Err(message),
                // Whoever closed the pipe has what he wanted.
                Some(Err(Failure::Unread)) => Ok(()),
                Some(Err(Failure::Usage(problem))) => return usage(&problem, Some(&command)),
                None => return usage(&no_command(&command), None),
            }
        }
        Some(Arg::Flag(flag)) => return usage(&format!("there is no option -{flag} before a command"), None),
        None => return usage("which command?", None),
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

/// `help [COMMAND]`, `--help`, and `COMMAND … --help`. What follows `--` asks for nothing.
fn asked_for_help() -> Option<Option<String>> {
    let words: Vec<String> = std::env::args().skip(1).take_while(|word| word != "--").collect();
    let is_help = |word: &String| matches!(word.as_str(), "-h" | "-help" | "--help");
    match words.split_first() {
        Some((first, rest)) if first == "help" || is_help(first) => Some(rest.first().cloned()),
        Some((first, rest)) if !first.starts_with('-') && rest.iter().any(is_help) => Some(Some(first.clone())),
        _ => None,
    }
}

fn no_command(given: &str) -> String {
    let hint = cli::help::meant_command(given).map(|meant| format!(": did you mean {meant}?")).unwrap_or_default();
    format!("there is no command {given}{hint}")
}

/// Prints, unless nobody reads it.
fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

fn usage(problem: &str, command: Option<&str>) -> ExitCode {
    let topic = command.map(|command| format!(" {command}")).unwrap_or_default();
    eprintln!("approov-web-service: {problem}\nSee approov-web-service help{topic}");
    ExitCode::from(2)
}
