//! The budgets of the project, and whether what was measured keeps them.

use super::series::{Series, Summary, find, paired};
use super::units::{AUTO, ENGINES, WASM, quantity};
use super::{FLOODED, QUIET};

/// How what was measured is held against a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Ours divided by the peer's is at least this.
    RatioAtLeast(f64),
    /// Ours divided by the peer's is at most this.
    RatioAtMost(f64),
    /// Ours minus the peer's is at most this, in the unit of both.
    BeyondAtMost(f64),
    /// Ours is at most this, in its unit. The peer is there to compare.
    AtMost(f64),
}

/// One budget: what is measured, for which engine, against which peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// What it is about, for people.
    pub(crate) what: &'static str,
    /// The engine, or empty.
    pub(crate) engine: &'static str,
    measure: &'static str,
    ours: &'static str,
    peer: Option<&'static str>,
    rule: Rule,
}

/// All budgets, in the order in which they are reported.
pub(crate) fn all() -> Vec<Budget> {
    let size = |what, ours, peer, most| Budget {
        what,
        engine: "",
        measure: "brotli",
        ours,
        peer: Some(peer),
        rule: Rule::AtMost(most),
    };
    let mut budgets = vec![
        size("`approov.js`, everything in one file", "ours: approov.js", "@auth0/auth0-spa-js", 67_000.0),
        size("default npm entry", "ours: index.js + wasm", "@auth0/auth0-spa-js", 54_000.0),
    ];
    let in_engines = |what, measure, ours, peer, rules: [Rule; 3]| {
        let engines = ENGINES.into_iter().zip(rules);
        engines.map(move |((engine, _), rule)| Budget { what, engine, measure, ours, peer, rule })
    };
    let dpop = Some("dpop");
    let default_key = [1.2, 1.2, 1.0].map(Rule::RatioAtLeast);
    let wasm_key = [0.6, 1.0, 4.0].map(Rule::RatioAtLeast);
    let one = [Rule::AtMost(1.0); 3];
    let beyond = "challenge to token, beyond the latency";
    budgets.extend(in_engines("`getDPoPToken`, default key", "proof", AUTO, dpop, default_key));
    budgets.extend(in_engines("`getDPoPToken`, `keyStorage: 'wasm'`", "proof", WASM, dpop, wasm_key));
    budgets.extend(in_engines("cached `fetchToken`", "cached fetchToken", AUTO, None, [Rule::AtMost(10.0); 3]));
    budgets.extend(in_engines("1,000 concurrent `fetchToken`", "concurrent fetchToken", AUTO, None, one));
    budgets.extend(in_engines("challenge solved → token", "challenge to token, round trips", AUTO, None, one));
    budgets.extend(in_engines(
        "challenge solved → token, beyond a bare round trip",
        beyond,
        AUTO,
        Some("bare fetch"),
        [Rule::BeyondAtMost(5.0); 3],
    ));
    for (what, peer) in [
        ("`createFetch`, cached token, what it adds to a bare `fetch`, beside Auth0's", "auth0 fetcher"),
        ("`createFetch`, the same beside atproto's", "atproto wrapper"),
    ] {
        let added = "fetch with token and proof, added";
        budgets.extend(in_engines(what, added, AUTO, Some(peer), [Rule::RatioAtMost(0.8); 3]));
    }
    let widget = Some("altcha widget");
    budgets.extend(in_engines(
        "ALTCHA solved at the default difficulty",
        "ALTCHA solved",
        AUTO,
        widget,
        [Rule::RatioAtMost(1.0); 3],
    ));
    // As long as a timer can tell.
    let blocked = [Rule::BeyondAtMost(5.0); 3];
    budgets.extend(in_engines(
        "ALTCHA, longest block of the page's thread",
        "ALTCHA, longest block",
        AUTO,
        widget,
        blocked,
    ));
    budgets.extend([
        Budget {
            what: "import → session ready",
            engine: "chromium",
            measure: "import to ready",
            ours: AUTO,
            peer: dpop,
            rule: Rule::AtMost(20.0),
        },
        Budget {
            what: "service, processor time of a refresh request (70 % of the rate of bare verification)",
            engine: "",
            measure: "service processor time",
            ours: "ours: refresh",
            peer: Some("bare ES256 verification"),
            rule: Rule::RatioAtMost(1.0 / 0.7),
        },
        Budget {
            what: "gate, processor time of a question over HTTP",
            engine: "",
            measure: "verify",
            ours: "gate: a question over HTTP, processor time",
            peer: Some("whole verification: token, proof, body"),
            rule: Rule::RatioAtMost(1.5),
        },
        Budget {
            what: "service, resident memory in the second half of the load against the first",
            engine: "",
            measure: "service memory",
            ours: "ours: second half",
            peer: Some("ours: first half"),
            rule: Rule::RatioAtMost(1.1),
        },
    ]);
    let floods = [
        ("service under attack: held connections", "under attack: held connections"),
        ("service under attack: junk results", "under attack: junk results"),
        ("service under attack: junk proofs and forms", "under attack: junk proofs and forms"),
        ("service under attack: zero-window streams", "under attack: zero-window streams"),
    ];
    budgets.extend(floods.map(|(what, measure)| Budget {
        what,
        engine: "",
        measure,
        ours: FLOODED,
        peer: Some(QUIET),
        rule: Rule::RatioAtMost(2.0),
    }));
    budgets
}

/// What came of a budget.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Ours.
    pub(crate) ours: Summary,
    /// Unit of ours and of the peer's.
    pub(crate) unit: String,
    /// Who the peer is, and its value.
    pub(crate) peer: Option<(String, Summary)>,
    /// Ours divided by the peer's.
    pub(crate) ratio: Option<Summary>,
    /// Whether the budget is kept.
    pub(crate) holds: bool,
}

impl Budget {
    /// `None` when it was not measured, or not the peer that it takes.
    pub(crate) fn judge(&self, all: &[Series]) -> Option<Verdict> {
        let ours = find(all, self.engine, self.measure, self.ours)?;
        let peer = self.peer.and_then(|peer| find(all, self.engine, self.measure, peer));
        let summary = ours.summary()?;
        let ratio = peer.and_then(|peer| paired(ours, peer, |ours, peer| ours / peer));
        let holds = match self.rule {
            Rule::RatioAtLeast(least) => ratio?.median >= least,
            Rule::RatioAtMost(most) => ratio?.median <= most,
            Rule::BeyondAtMost(most) => paired(ours, peer?, |ours, peer| ours - peer)?.median <= most,
            Rule::AtMost(most) => summary.median <= most,
        };
        let peer = peer.and_then(|peer| Some((peer.subject.clone(), peer.summary()?)));
        Some(Verdict { ours: summary, unit: ours.unit.clone(), peer, ratio, holds })
    }

    /// The budget as text; `unit` is that of what was measured.
    pub(crate) fn describe(&self, unit: &str) -> String {
        match self.rule {
            Rule::RatioAtLeast(least) => format!("≥ {least} ×"),
            Rule::RatioAtMost(most) => format!("≤ {} ×", (most * 100.0).round() / 100.0),
            Rule::BeyondAtMost(most) => format!("≤ {most} ms more"),
            Rule::AtMost(most) => format!("≤ {}", quantity(most, unit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(engine: &str, measure: &str, subject: &str, rounds: &[f64]) -> Series {
        Series { engine: engine.to_owned(), ..Series::new(measure, subject, "ms", rounds.to_vec()) }
    }

    fn budget(rule: Rule) -> Budget {
        Budget { what: "it", engine: "firefox", measure: "m", ours: AUTO, peer: Some("dpop"), rule }
    }

    fn measured(ours: f64, peer: f64) -> Vec<Series> {
        vec![
            series("firefox", "m", AUTO, &[ours]),
            series("firefox", "m", "dpop", &[peer]),
            series("webkit", "m", AUTO, &[0.0]),
        ]
    }

    #[test]
    fn a_budget_holds_up_to_its_bound_and_not_beyond() {
        let holds = |rule, ours, peer| budget(rule).judge(&measured(ours, peer)).unwrap().holds;
        assert!(holds(Rule::RatioAtLeast(1.5), 15.0, 10.0));
        assert!(!holds(Rule::RatioAtLeast(1.5), 14.9, 10.0));
        assert!(holds(Rule::RatioAtMost(1.5), 15.0, 10.0));
        assert!(!holds(Rule::RatioAtMost(1.5), 15.1, 10.0));
        assert!(holds(Rule::BeyondAtMost(5.0), 15.0, 10.0));
        assert!(!holds(Rule::BeyondAtMost(5.0), 15.1, 10.0));
        assert!(holds(Rule::AtMost(10.0), 10.0, 1.0));
        assert!(!holds(Rule::AtMost(10.0), 10.1, 1.0));
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(budget(Rule::AtMost(1.0)).judge(&[]), None);
        let without_peer = vec![series("firefox", "m", AUTO, &[1.0])];
        assert_eq!(budget(Rule::RatioAtLeast(1.0)).judge(&without_peer), None);
        assert!(budget(Rule::AtMost(1.0)).judge(&without_peer).unwrap().holds);
    }

    #[test]
    fn every_budget_of_the_sdk_is_there_for_each_engine() {
        let budgets = all();
        for what in ["`getDPoPToken`, default key", "cached `fetchToken`", "challenge solved → token"] {
            let engines: Vec<_> =
                budgets.iter().filter(|budget| budget.what == what).map(|budget| budget.engine).collect();
            assert_eq!(engines, ["chromium", "firefox", "webkit"], "{what}");
        }
    }
}
