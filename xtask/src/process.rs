//! Running programs: shown before they run, their output streamed, their failure an error that names them.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
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

/// A display without a screen, for browsers that have no headless mode. It ends with this value.
pub(crate) struct VirtualDisplay {
    server: Child,
    number: u32,
}

impl VirtualDisplay {
    /// Starts one unless there is a display already. The server chooses a free number and prints it.
    pub(crate) fn start_if_needed() -> Result<Option<Self>> {
        if std::env::var_os("DISPLAY").is_some() {
            return Ok(None);
        }
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp"]);
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("starting Xvfb")?;
        let mut line = String::new();
        let read = server.stdout.take().map(|stream| BufReader::new(stream).read_line(&mut line));
        read.transpose().context("reading the number of the display")?;
        let mut display = Self { server, number: 0 };
        display.number = line.trim().parse().with_context(|| format!("Xvfb named no display but {line:?}"))?;
        Ok(Some(display))
    }

    /// What `DISPLAY` must be.
    pub(crate) fn name(&self) -> String {
        format!(":{}", self.number)
    }
}

impl Drop for VirtualDisplay {
    fn drop(&mut self) {
        if let Err(error) = self.server.kill().and_then(|()| self.server.wait()) {
            eprintln!("Xvfb did not end: {error}");
        }
    }
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
