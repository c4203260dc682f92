//! Approov web SDK.
