//! Running programs: shown before they run, their output streamed, their failure an error that names them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};

/// Runs a program with its output on the terminal. A failing exit status is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| format!("starting {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs a program quietly and returns what it printed. A failing exit status is an error that carries its complaint.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let result = command.output().with_context(|| format!("starting {}", describe(command)))?;
    if !result.status.success() {
        let complaint = String::from_utf8_lossy(&result.stderr);
        bail!("{} failed ({}): {}", describe(command), result.status, complaint.trim());
    }
    String::from_utf8(result.stdout).with_context(|| format!("output of {}", describe(command)))
}

/// Whether a program can be run and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a program, passes every line it prints (on either stream) on to the terminal and to `each`.
pub(crate) fn run_watched(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    announce(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", describe(command)))?;
    let (sender, receiver) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    let readers: Vec<_> = streams
        .into_iter()
        .flatten()
        .map(|stream| {
            let sender = sender.clone();
            thread::spawn(move || -> std::io::Result<()> {
                for line in BufReader::new(stream).split(b'\n') {
                    if sender.send(String::from_utf8_lossy(&line?).into_owned()).is_err() {
                        break;
                    }
                }
                Ok(())
            })
        })
        .collect();
    drop(sender);
    for line in receiver {
        println!("{line}");
        each(&line);
    }
    for reader in readers {
        match reader.join() {
            Ok(read) => read.with_context(|| format!("reading the output of {}", describe(command)))?,
            Err(_) => bail!("the reader of {} stopped", describe(command)),
        }
    }
    child.wait().with_context(|| format!("waiting for {}", describe(command)))
}

fn announce(command: &Command) {
    println!("$ {}", describe(command));
}

/// A command line for people: the program's file name and its arguments.
fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    command.get_args().fold(name, |line, argument| {
        let argument = argument.to_string_lossy();
        let shown =
            if argument.contains(' ') || argument.is_empty() { format!("'{argument}'") } else { argument.into_owned() };
        format!("{line} {shown}")
    })
}
