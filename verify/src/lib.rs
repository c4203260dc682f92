//! Checks of Approov tokens and DPoP proofs.
