//! What pages and the service are configured with to use the simulators.

/// The simulated hCaptcha site and its secret: hCaptcha's public test pair.
pub const HCAPTCHA_SITE_KEY: &str = "10000000-ffff-ffff-ffff-000000000001";
/// See [`HCAPTCHA_SITE_KEY`].
pub const HCAPTCHA_SECRET: &str = "0x0000000000000000000000000000000000000000";
/// The simulated reCAPTCHA site and its secret: Google's public test pair.
pub const RECAPTCHA_SITE_KEY: &str = "6LeIxAcTAAAAAJcZVRqyHh71UMIEGNQ_MXjiZKhI";
/// See [`RECAPTCHA_SITE_KEY`].
pub const RECAPTCHA_SECRET: &str = "6LeIxAcTAAAAAGG-vFI1TnRWxMZNFuojJ4WifJWe";
/// The simulated reCAPTCHA Enterprise key, in [`RECAPTCHA_ENTERPRISE_PROJECT`].
pub const RECAPTCHA_ENTERPRISE_SITE_KEY: &str = "dev-recaptcha-enterprise-site-key";
/// Its project of Google Cloud.
pub const RECAPTCHA_ENTERPRISE_PROJECT: &str = "dev-project";
/// The API key of that project.
pub const RECAPTCHA_ENTERPRISE_API_KEY: &str = "dev-recaptcha-enterprise-api-key";
/// The simulated Turnstile widget. Cloudflare's public test keys work, too, with their own secrets.
pub const TURNSTILE_SITE_KEY: &str = "dev-turnstile-site-key";
/// Its secret.
pub const TURNSTILE_SECRET: &str = "dev-turnstile-secret-key";
/// Cloudflare's public secrets: of [`TURNSTILE_TEST_TOKEN`] they say that it passes, that it fails, and that it was used before.
pub const TURNSTILE_TEST_SECRETS: [&str; 3] = [
    "1x0000000000000000000000000000000AA",
    "2x0000000000000000000000000000000AA",
    "3x0000000000000000000000000000000AA",
];
/// What widgets with one of Cloudflare's public test keys give.
pub const TURNSTILE_TEST_TOKEN: &str = "XXXX.DUMMY.TOKEN.XXXX";
/// The simulated Friendly Captcha site.
pub const FRIENDLY_SITE_KEY: &str = "dev-friendly-site-key";
/// Its API key.
pub const FRIENDLY_API_KEY: &str = "dev-friendly-api-key";
/// The simulated Fingerprint subscription.
pub const FINGERPRINT_PUBLIC_API_KEY: &str = "dev-fingerprint-public-api-key";
/// Its secret.
pub const FINGERPRINT_SECRET: &str = "dev-fingerprint-secret-api-key";
/// What opens its sealed results (base64 of 32 bytes).
pub const FINGERPRINT_SEALED_KEY: &str = "YXBwcm9vdi1zaW11bGF0b3Itc2VhbGVkLXJlc3VsdHM=";

/// The outcomes that a site key can choose: see the outcomes of [the simulators](super).
pub const OUTCOMES: [&str; 11] =
    ["pass", "fail", "low-score", "bot", "expired", "error", "slow", "timeout", "never", "reject", "script-blocked"];

/// The site key that chooses this outcome.
pub fn with_outcome(key: &str, outcome: &str) -> String {
    format!("{key}-sim-{outcome}")
}

/// A site key that chooses an outcome, `KEY-sim-OUTCOME`, without the outcome; others as they are.
pub(super) fn without_outcome(key: &str) -> &str {
    key.rsplit_once("-sim-").map_or(key, |(key, _)| key)
}

/// The outcome that a site key chooses.
pub(super) fn outcome_of(key: &str) -> Option<&str> {
    key.rsplit_once("-sim-").map(|(_, outcome)| outcome)
}
