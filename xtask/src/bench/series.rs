//! What was measured: series of rounds, and what they amount to.

use anyhow::{Context, Result};
use serde_json::Value;

/// All rounds of one measurement of one subject.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// The browser engine, or empty where there is none.
    pub(crate) engine: String,
    /// What was measured.
    pub(crate) measure: String,
    /// Who did it: `ours (…)` or a peer.
    pub(crate) subject: String,
    /// Unit of the rounds.
    pub(crate) unit: String,
    /// One value for each round, in the order in which they were taken. Subjects of one measurement take turns, so that rounds
    /// of the same number belong together.
    pub(crate) rounds: Vec<f64>,
}

impl Series {
    /// A series without an engine.
    pub(crate) fn new(measure: &str, subject: &str, unit: &str, rounds: Vec<f64>) -> Self {
        Self {
            engine: String::new(),
            measure: measure.to_owned(),
            subject: subject.to_owned(),
            unit: unit.to_owned(),
            rounds,
        }
    }

    /// The series of a part's file.
    pub(crate) fn read_all(file: &Value) -> Result<Vec<Self>> {
        let list = file.get("series").and_then(Value::as_array).context("a result without series")?;
        list.iter().map(Self::read).collect()
    }

    fn read(value: &Value) -> Result<Self> {
        let text = |name: &str| -> Result<String> {
            let text = value.get(name).and_then(Value::as_str);
            Ok(text.with_context(|| format!("a series without {name}: {value}"))?.to_owned())
        };
        let rounds = value.get("rounds").and_then(Value::as_array).context("a series without rounds")?;
        let rounds = rounds
            .iter()
            .map(|round| round.as_f64().with_context(|| format!("a round that is no number: {value}")))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            engine: text("engine")?,
            measure: text("measure")?,
            subject: text("subject")?,
            unit: text("unit")?,
            rounds,
        })
    }

    /// As it is stored.
    pub(crate) fn to_json(&self) -> Value {
        serde_json::json!({
            "engine": self.engine, "measure": self.measure, "subject": self.subject, "unit": self.unit, "rounds": self.rounds,
        })
    }

    /// Median and quartiles; `None` without rounds.
    pub(crate) fn summary(&self) -> Option<Summary> {
        Summary::of(&self.rounds)
    }
}

/// The series of this engine, measurement and subject.
pub(crate) fn find<'a>(all: &'a [Series], engine: &str, measure: &str, subject: &str) -> Option<&'a Series> {
    all.iter().find(|series| series.engine == engine && series.measure == measure && series.subject == subject)
}

/// The middle of some values, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// The middle value.
    pub(crate) median: f64,
    /// A quarter of the values are at or below this one.
    pub(crate) lower: f64,
    /// A quarter of the values are at or above this one.
    pub(crate) upper: f64,
}

impl Summary {
    /// `None` for no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self { median: quantile(&sorted, 2)?, lower: quantile(&sorted, 1)?, upper: quantile(&sorted, 3)? })
    }
}

/// The `quarter`th quartile of sorted values, interpolated between neighbours.
fn quantile(sorted: &[f64], quarter: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let (below, rest) = (last * quarter / 4, last * quarter % 4);
    let low = *sorted.get(below)?;
    let high = *sorted.get(below + 1).unwrap_or(&low);
    #[allow(clippy::cast_precision_loss)] // 0 to 3
    let share = rest as f64 / 4.0;
    Some(low + (high - low) * share)
}

/// Pairs the rounds of two series and combines each pair: what the machine did besides meets both alike, and cancels out.
/// Series of different lengths give the combination of their medians.
pub(crate) fn paired(ours: &Series, peer: &Series, combine: impl Fn(f64, f64) -> f64) -> Option<Summary> {
    if ours.rounds.len() == peer.rounds.len() {
        let pairs: Vec<f64> = ours.rounds.iter().zip(&peer.rounds).map(|(ours, peer)| combine(*ours, *peer)).collect();
        return Summary::of(&pairs);
    }
    let median = combine(ours.summary()?.median, peer.summary()?.median);
    Some(Summary { median, lower: median, upper: median })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rounds: &[f64]) -> Series {
        Series::new("proof", "ours", "per second", rounds.to_vec())
    }

    #[test]
    fn the_median_does_not_depend_on_the_order_of_rounds() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
    }

    #[test]
    fn quartiles_are_interpolated_as_other_programs_do_it() {
        // numpy.quantile([1, 2, 3, 4, 10], [.25, .5, .75]); numpy.quantile([1, 2, 3, 4], [.25, .5, .75])
        let five = Summary::of(&[10.0, 4.0, 3.0, 2.0, 1.0]).unwrap();
        assert_eq!((five.lower, five.median, five.upper), (2.0, 3.0, 4.0));
        let four = Summary::of(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!((four.lower, four.median, four.upper), (1.75, 2.5, 3.25));
    }

    #[test]
    fn nothing_measured_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(paired(&series(&[]), &series(&[]), |a, b| a / b), None);
    }

    #[test]
    fn one_round_is_its_own_median_and_spread() {
        assert_eq!(Summary::of(&[7.0]), Some(Summary { median: 7.0, lower: 7.0, upper: 7.0 }));
    }

    #[test]
    fn a_disturbance_that_meets_both_in_the_same_round_does_not_change_the_ratio() {
        // Every second round the machine was three times as slow.
        let ours = series(&[200.0, 66.0, 200.0, 66.0]);
        let peer = series(&[100.0, 33.0, 100.0, 33.0]);
        assert_eq!(paired(&ours, &peer, |ours, peer| ours / peer).unwrap().median, 2.0);
    }

    #[test]
    fn series_of_different_lengths_are_compared_by_their_medians() {
        let ratio = paired(&series(&[10.0, 20.0, 30.0]), &series(&[10.0]), |ours, peer| ours / peer).unwrap();
        assert_eq!(ratio.median, 2.0);
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let stored = serde_json::json!({ "series": [series(&[1.5, 2.0]).to_json()] });
        assert_eq!(Series::read_all(&stored).unwrap(), [series(&[1.5, 2.0])]);
        let broken = serde_json::json!({ "series": [{ "engine": "", "measure": "m", "subject": "s", "unit": "u", "rounds": ["1"] }] });
        assert!(Series::read_all(&broken).is_err());
    }
}
