//! The README's chart: proofs per second in each engine, and sizes, as bars in one SVG.

use std::fmt::Write as _;

use super::series::{Series, find};
use super::units::{ENGINES, PROVERS, quantity};

const WIDTH: f64 = 760.0;
const LABELS: f64 = 220.0;
const VALUES: f64 = 90.0;
const BAR: f64 = 16.0;
const LINE: f64 = 22.0;
const TITLE: f64 = 34.0;

/// One group of bars that share a scale.
struct Group {
    title: String,
    bars: Vec<Bar>,
}

struct Bar {
    label: String,
    value: f64,
    unit: String,
    ours: bool,
}

/// The chart of what was measured.
pub(crate) fn draw(all: &[Series]) -> String {
    let mut groups: Vec<Group> = ENGINES.iter().map(|(engine, title)| proofs(all, engine, title)).collect();
    groups.push(sizes(all));
    groups.retain(|group| !group.bars.is_empty());
    render(&groups)
}

fn proofs(all: &[Series], engine: &str, title: &str) -> Group {
    let bars = PROVERS
        .iter()
        .filter_map(|(subject, label)| {
            let series = find(all, engine, "proof", subject)?;
            bar(series, (*label).to_owned())
        })
        .collect();
    Group { title: format!("DPoP proofs per second, {title} (longer is better)"), bars }
}

fn sizes(all: &[Series]) -> Group {
    let mut bars: Vec<Bar> = all
        .iter()
        .filter(|series| series.measure == "brotli")
        .filter_map(|series| bar(series, series.subject.clone()))
        .collect();
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    Group { title: "Size after brotli (shorter is better)".to_owned(), bars }
}

fn bar(series: &Series, label: String) -> Option<Bar> {
    Some(Bar {
        label,
        value: series.summary()?.median,
        unit: series.unit.clone(),
        ours: series.subject.starts_with("ours"),
    })
}

fn render(groups: &[Group]) -> String {
    #[allow(clippy::cast_precision_loss)] // a few dozen lines
    let lines = groups.iter().map(|group| group.bars.len()).sum::<usize>() as f64;
    #[allow(clippy::cast_precision_loss)]
    let height = lines * LINE + groups.len() as f64 * (TITLE + 14.0) + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
<title>Proofs per second in each engine, and sizes, next to the peers</title>\n\
<style>text{{font:13px system-ui,sans-serif;fill:#1f2328}}.t{{font-weight:600}}.p{{fill:#8c959f}}.o{{fill:#0969da}}\
@media(prefers-color-scheme:dark){{text{{fill:#e6edf3}}.p{{fill:#6e7681}}.o{{fill:#4493f8}}}}</style>\n"
    );
    let mut y = 0.0;
    for group in groups {
        y += TITLE;
        line(&mut svg, &format!("<text class=\"t\" x=\"0\" y=\"{}\">{}</text>", y - 8.0, escaped(&group.title)));
        let longest = group.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        for bar in &group.bars {
            let length = if longest > 0.0 { (WIDTH - LABELS - VALUES) * bar.value / longest } else { 0.0 };
            let class = if bar.ours { 'o' } else { 'p' };
            line(&mut svg, &format!("<text x=\"0\" y=\"{:.1}\">{}</text>", y + 13.0, escaped(&bar.label)));
            line(
                &mut svg,
                &format!(
                    "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
                ),
            );
            let value = escaped(&quantity(bar.value, &bar.unit));
            line(&mut svg, &format!("<text x=\"{:.1}\" y=\"{:.1}\">{value}</text>", LABELS + length + 6.0, y + 13.0));
            y += LINE;
        }
        y += 14.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, element: &str) {
    // Writing to a string cannot fail.
    let _infallible = writeln!(svg, "{element}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::units::AUTO;

    fn proof(subject: &str, rate: f64) -> Series {
        Series { engine: "firefox".to_owned(), ..Series::new("proof", subject, "per second", vec![rate]) }
    }

    #[test]
    fn the_longest_bar_fills_the_space_and_the_others_are_in_proportion() {
        let svg = draw(&[proof(AUTO, 2000.0), proof("dpop", 1000.0)]);
        assert!(svg.contains("class=\"o\" x=\"220\" y=\"34.0\" width=\"450.0\""), "{svg}");
        assert!(svg.contains("class=\"p\" x=\"220\" y=\"56.0\" width=\"225.0\""), "{svg}");
        assert!(svg.contains("Firefox") && !svg.contains("WebKitGTK"), "{svg}");
    }

    #[test]
    fn labels_cannot_break_the_drawing() {
        let svg = draw(&[Series::new("brotli", "a<b>&c", "bytes", vec![1.0])]);
        assert!(svg.contains("a&lt;b&gt;&amp;c") && !svg.contains("a<b>"), "{svg}");
    }
}
