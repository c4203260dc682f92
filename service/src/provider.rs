//! The three check services and the wire names that belong to each.

use crate::error::Code;

/// A check service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// Fingerprint (browser identification).
    Fingerprint,
    /// hCaptcha.
    Hcaptcha,
    /// Google reCAPTCHA, v2 and v3.
    Recaptcha,
}

impl Provider {
    /// All of them, in the order of the specification.
    pub const ALL: [Provider; 3] = [Provider::Fingerprint, Provider::Hcaptcha, Provider::Recaptcha];

    /// The prefix in `embed` and `expiries` keys, before the colon and the site key.
    pub fn prefix(self) -> &'static str {
        match self {
            Provider::Fingerprint => "fp",
            Provider::Hcaptcha => "hcap",
            Provider::Recaptcha => "recap",
        }
    }

    /// The name in the configuration file, on the command line, in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Fingerprint => "fingerprint",
            Provider::Hcaptcha => "hcaptcha",
            Provider::Recaptcha => "recaptcha",
        }
    }

    /// The name as the service writes it itself.
    pub fn title(self) -> &'static str {
        match self {
            Provider::Fingerprint => "Fingerprint",
            Provider::Hcaptcha => "hCaptcha",
            Provider::Recaptcha => "reCAPTCHA",
        }
    }

    /// What the service calls the thing that a public key names.
    pub fn site_word(self) -> &'static str {
        match self {
            Provider::Fingerprint => "subscription",
            Provider::Hcaptcha | Provider::Recaptcha => "site",
        }
    }

    /// The request parameters of a result: name, whether it is required, and the code for an empty one.
    /// The first names the site.
    pub fn params(self) -> &'static [(&'static str, bool, Option<Code>)] {
        match self {
            Provider::Fingerprint => &[
                ("fingerprintjs-token", true, Some(Code::FpEmptyBrowserToken)),
                ("fingerprintjs-visitor-id", true, Some(Code::FpEmptyVisitorId)),
                ("fingerprintjs-request-id", true, Some(Code::FpEmptyRequestId)),
            ],
            Provider::Hcaptcha => &[
                ("hcaptcha-site-key", true, Some(Code::HcapEmptySiteKey)),
                ("hcaptcha-token", true, Some(Code::HcapEmptyToken)),
                ("hcaptcha-key", false, None),
                ("hcaptcha-host", false, None),
            ],
            Provider::Recaptcha => &[
                ("recaptcha-site-key", true, Some(Code::RecapEmptySiteKey)),
                ("recaptcha-token", true, Some(Code::RecapEmptyToken)),
            ],
        }
    }

    /// The codes of this service's faults.
    pub fn codes(self) -> ProviderCodes {
        match self {
            Provider::Fingerprint => ProviderCodes {
                config_not_found: Code::FpConfigNotFound,
                missing_required: Code::FpMissingRequired,
                mismatch: Code::FpParamMismatch,
                key_not_found: Code::FpBrowserTokenNotFound,
                check: Code::FpTokenCheck,
            },
            Provider::Hcaptcha => ProviderCodes {
                config_not_found: Code::HcapConfigNotFound,
                missing_required: Code::HcapMissingRequired,
                mismatch: Code::HcapParamMismatch,
                key_not_found: Code::HcapSiteKeyNotFound,
                check: Code::HcapTokenCheck,
            },
            Provider::Recaptcha => ProviderCodes {
                config_not_found: Code::RecapConfigNotFound,
                missing_required: Code::RecapMissingRequired,
                mismatch: Code::RecapParamMismatch,
                key_not_found: Code::RecapSiteKeyNotFound,
                check: Code::RecapTokenCheck,
            },
        }
    }
}

/// The error codes that each check service has of its own.
pub struct ProviderCodes {
    /// Parameters came, but the account has no such site.
    pub config_not_found: Code,
    /// The account requires this check.
    pub missing_required: Code,
    /// Some parameters are missing.
    pub mismatch: Code,
    /// The named site is not the account's.
    pub key_not_found: Code,
    /// The check itself went wrong.
    pub check: Code,
}
