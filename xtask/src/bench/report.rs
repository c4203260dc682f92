//! What was measured, for people: tables in the terminal and in the README.

use super::budget::{self, Budget, Verdict};
use super::machine::Machine;
use super::series::{Series, find};
use super::units::{ENGINES, PROVERS, quantity, spread};

/// A table: its columns' titles, and the rows.
pub(crate) struct Table {
    titles: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Every budget with ours, the peer's, ratio, and whether it holds; `complete` with those that were not measured.
    pub(crate) fn budgets(all: &[Series], complete: bool) -> Self {
        let rows = budget::all()
            .iter()
            .map(|budget| (budget, budget.judge(all)))
            .filter(|(_, verdict)| complete || verdict.is_some())
            .map(|(budget, verdict)| budget_row(budget, verdict.as_ref()))
            .collect();
        Self { titles: vec!["what", "ours", "peer", "ratio", "budget", "holds"], rows }
    }

    /// Each subject in each engine: proofs, signatures, keys, and the first of them in a fresh page.
    pub(crate) fn subjects(all: &[Series]) -> Self {
        const MEASURES: [(&str, &str); 5] = [
            ("proof", "proofs per second"),
            ("first proof", "first proof of a page"),
            ("import to ready", "import → key ready"),
            ("key", "another key"),
            ("sign", "signatures per second"),
        ];
        let subjects = PROVERS.iter().copied().chain([("webcrypto", "WebCrypto alone")]);
        let rows = subjects
            .flat_map(|(subject, name)| ENGINES.map(|(engine, title)| (subject, name, engine, title)))
            .map(|(subject, name, engine, title)| {
                let cells = MEASURES.map(|(measure, _)| {
                    let series = find(all, engine, measure, subject);
                    series.and_then(|series| Some(spread(&series.summary()?, &series.unit))).unwrap_or("–".to_owned())
                });
                [name.to_owned(), title.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
            })
            .filter(|row| row.iter().skip(2).any(|cell| cell != "–"))
            .collect();
        let titles = ["who", "engine"].into_iter().chain(MEASURES.map(|(_, title)| title)).collect();
        Self { titles, rows }
    }

    /// Each entry of the package and each peer: minified, gzip, brotli.
    pub(crate) fn sizes(all: &[Series]) -> Self {
        let cell = |measure: &str, subject: &str| {
            let summary = find(all, "", measure, subject).and_then(Series::summary);
            summary.map_or("–".to_owned(), |summary| quantity(summary.median, "bytes"))
        };
        let rows = all
            .iter()
            .filter(|series| series.measure == "brotli")
            .map(|series| {
                let subject = series.subject.as_str();
                vec![subject.to_owned(), cell("minified", subject), cell("gzip", subject), cell("brotli", subject)]
            })
            .collect();
        Self { titles: vec!["what", "minified", "gzip", "brotli"], rows }
    }

    /// The native parts next to the cryptography that they need.
    pub(crate) fn native(all: &[Series]) -> Self {
        let rows = all
            .iter()
            .filter(|series| {
                ["verify", "service rate", "service processor time", "service time", "service memory"]
                    .contains(&series.measure.as_str())
                    || series.measure.starts_with("under attack")
            })
            .filter_map(|series| {
                let summary = series.summary()?;
                Some(vec![series.measure.clone(), series.subject.clone(), spread(&summary, &series.unit)])
            })
            .collect();
        Self { titles: vec!["part", "what", "median (quartiles)"], rows }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For a terminal: columns as wide as they must be.
    pub(crate) fn to_text(&self) -> String {
        let titles: Vec<String> = self.titles.iter().map(|title| (*title).to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&titles).chain(&self.rows).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.titles.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    /// For the README.
    pub(crate) fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let titles: Vec<String> = self.titles.iter().map(|title| (*title).to_owned()).collect();
        let mut text = line(&titles);
        text.push_str(&format!("|{}\n", "---|".repeat(titles.len())));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

fn budget_row(budget: &Budget, verdict: Option<&Verdict>) -> Vec<String> {
    let engine = ENGINES.iter().find(|(engine, _)| *engine == budget.engine).map(|(_, title)| format!(", {title}"));
    let what = format!("{}{}", budget.what, engine.unwrap_or_default());
    let Some(verdict) = verdict else {
        return vec![
            what,
            "not measured".to_owned(),
            "–".to_owned(),
            "–".to_owned(),
            budget.describe(""),
            "–".to_owned(),
        ];
    };
    let dash = || "–".to_owned();
    vec![
        what,
        spread(&verdict.ours, &verdict.unit),
        verdict.peer.as_ref().map_or_else(dash, |(name, summary)| format!("{name} {}", spread(summary, &verdict.unit))),
        verdict.ratio.as_ref().map_or_else(dash, |ratio| format!("{:.2}", ratio.median)),
        budget.describe(&verdict.unit),
        if verdict.holds { "yes" } else { "**no**" }.to_owned(),
    ]
}

/// How many budgets hold, of how many that were measured.
pub(crate) fn count_held(all: &[Series]) -> (usize, usize) {
    let verdicts: Vec<Verdict> = budget::all().iter().filter_map(|budget| budget.judge(all)).collect();
    (verdicts.iter().filter(|verdict| verdict.holds).count(), verdicts.len())
}

/// The README's section, between its markers.
pub(crate) fn readme_section(all: &[Series], machine: &Machine) -> String {
    let (holding, measured) = count_held(all);
    format!(
        "Measured by `cargo xtask bench --write-readme` on {date}, which wrote this section: {machine}. Ours and the peers' took turns in \
the same run and, in browsers, in the same page. Medians, quartiles in brackets; a ratio is the median of the rounds' ratios. {holding} of \
{measured} budgets hold.\n\n![Proofs per second in each engine, and sizes, next to the peers](docs/performance.svg)\n\n{budgets}\n\
<details><summary>Everything that was measured</summary>\n\n{subjects}\nA key of this SDK is a session: `initializeSession` makes the key and sends the \
nonce request. For the others it is the key alone.\n\n{sizes}\n{native}\n</details>\n\n\
To repeat it: `cargo xtask bench`, or a part of it: `sdk`, `size`, `service`, `attacks`, `verify`. All rounds are in `target/bench/`.\n",
        date = machine.date,
        budgets = Table::budgets(all, true).to_markdown(),
        subjects = Table::subjects(all).to_markdown(),
        sizes = Table::sizes(all).to_markdown(),
        native = Table::native(all).to_markdown(),
    )
}

const BEGIN: &str = "<!-- performance: begin -->\n";
const END: &str = "<!-- performance: end -->";

/// The README with this section in place of the one it has.
pub(crate) fn replace_section(readme: &str, section: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{section}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_without_a_measurement_says_so() {
        assert!(Table::budgets(&[], false).is_empty());
        let table = Table::budgets(&[], true);
        assert!(table.rows.iter().all(|row| row.get(1).map(String::as_str) == Some("not measured")));
        assert_eq!(table.rows.len(), budget::all().len());
    }

    #[test]
    fn a_missed_budget_is_not_called_count_held() {
        let series = vec![
            Series::new("brotli", "ours: approov.js", "bytes", vec![67_001.0]),
            Series::new("brotli", "@auth0/auth0-spa-js", "bytes", vec![50_213.0]),
        ];
        let table = Table::budgets(&series, false).to_text();
        let line = table.lines().find(|line| line.contains("everything in one file")).unwrap();
        assert!(line.contains("67.0 kB") && line.contains("1.33") && line.ends_with("**no**"), "{line}");
        assert_eq!(count_held(&series), (0, 1));
    }

    #[test]
    fn the_section_between_the_markers_is_replaced_and_nothing_else() {
        let readme = format!("# Title\n\n{BEGIN}old\n{END}\n\n## Next\n");
        assert_eq!(replace_section(&readme, "new\n").unwrap(), format!("# Title\n\n{BEGIN}new\n{END}\n\n## Next\n"));
        assert_eq!(replace_section("# Title\n", "new\n"), None);
    }

    #[test]
    fn columns_line_up() {
        let table = Table {
            titles: vec!["a", "b"],
            rows: vec![vec!["µ".to_owned(), "1".to_owned()], vec!["long".to_owned(), "2".to_owned()]],
        };
        assert_eq!(table.to_text(), "a     b\nµ     1\nlong  2\n");
        assert_eq!(table.to_markdown(), "| a | b |\n|---|---|\n| µ | 1 |\n| long | 2 |\n");
    }
}
