//! The check services: one file each, over a table of them ([`Provider`]).
//!
//! A file says all that is particular to its check service: names on the wire, in the configuration file and on the
//! command line, the request to its server, how the response is judged (pure: bytes in, verdict out), what tokens embed.
//!
//! There are three outcomes. A check that ran and met the rules passed. A check that ran and did not, failed: the
//! client gets tokens that no backend accepts. A check that did not run (wrong secret, outage, a response that is not
//! understood) is an error that the client learns of.

pub mod altcha;
mod brief;
mod check_site;
mod client;
mod clock;
mod definition;
pub mod fingerprint;
pub mod friendly;
pub mod hcaptcha;
mod outcome;
mod params;
mod provider;
pub mod recaptcha;
mod recaptcha_enterprise;
mod site;
mod site_table;
mod siteverify;
pub mod turnstile;

pub use brief::{Brief, Fallback};
pub use client::{BuiltInContext, CheckClient, CheckContext, SiteSecrets};
pub use definition::{Definition, OptionKind, Param, ParamText, ProviderCodes, SiteOption};
pub use outcome::{CheckError, Checked, FailedRule};
pub use params::{OwnedParams, ResultParams};
pub use provider::{Provider, SiteKind};
pub use site::{COMMON_OPTIONS, Check, FreshResult, Mode, Site, site_option};
pub use site_table::{VENDOR_OPTIONS, Vendor};
pub use siteverify::CaptchaRules;
