//! Where and when something was measured.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::output;

/// The machine, as far as it matters to what is measured.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The day, in UTC.
    pub(crate) date: String,
    processor: String,
    cores: usize,
    memory: String,
    system: String,
    /// How many processes wanted to run, on average over the minute before the measurement.
    load: f64,
    rust: String,
    node: String,
    /// The browsers of the run, with their versions.
    pub(crate) browsers: Vec<String>,
}

impl Machine {
    /// This one, now.
    pub(crate) fn describe() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let kilobytes = field(&memory, "MemTotal", ':').and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let load = fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
        Ok(Self {
            date: output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?.trim().to_owned(),
            processor: field(&processors, "model name", ':').unwrap_or("unknown processor").to_owned(),
            cores: std::thread::available_parallelism().context("counting cores")?.get(),
            memory: kilobytes.map_or("unknown".to_owned(), |kilobytes| format!("{:.0} GiB", kilobytes / 1_048_576.0)),
            system: system()?,
            load: load.split(' ').next().and_then(|load| load.parse().ok()).context("reading the load")?,
            rust: output(Command::new("rustc").arg("--version"))?.trim().to_owned(),
            node: output(Command::new("node").arg("--version"))?.trim().to_owned(),
            browsers: Vec::new(),
        })
    }

    /// As it is stored with the rounds.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "date": self.date, "processor": self.processor, "cores": self.cores, "memory": self.memory, "system": self.system,
            "load": self.load, "rust": self.rust, "node": self.node, "browsers": self.browsers,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}, {} cores, {}, {}", self.processor, self.cores, self.memory, self.system)?;
        write!(formatter, "; {}; Node.js {}", self.rust, self.node)?;
        for browser in &self.browsers {
            write!(formatter, ", {browser}")?;
        }
        write!(formatter, "; load {:.1} when it began", self.load)
    }
}

fn system() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = field(&release, "PRETTY_NAME", '=').map(|name| name.trim_matches('"').to_owned());
    let kernel = output(Command::new("uname").args(["-s", "-r"]))?;
    Ok(name.unwrap_or_else(|| kernel.trim().to_owned()))
}

/// The value of the first line with this name.
fn field<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_processor_names_them_all() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\n\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name", ':'), Some("Some CPU @ 2.0GHz"));
        assert_eq!(field("PRETTY_NAME=\"Debian\"\n", "PRETTY_NAME", '='), Some("\"Debian\""));
        assert_eq!(field(text, "cache size", ':'), None);
    }
}
