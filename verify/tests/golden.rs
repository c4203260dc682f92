//! Examples of the RFCs and vectors of Project Wycheproof, which nobody here made.
//!
//! Others are next to the code that they test: RFC 7515 A.1 (`jws.rs`), RFC 7516 A.1 and RFC 7520 5.7, which is
//! RFC 7518's A256GCMKW (`jwe.rs`), RFC 7638 3.1 and RFC 9449 6.1 (`jwk.rs`), RFC 9449 4.1 and 7.1 (`dpop.rs`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "a test fails by panicking")]

use approov_verify::jwk::{P256PublicKey, RsaPublicKey};
use approov_verify::jws::{HmacKey, Jws, JwsError, VerificationKey};
use approov_verify::keyset::KeySet;
use approov_verify::secret::Secret;
use serde::Deserialize;
use serde_json::{Map, Value, json};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn es256(jwk: Value) -> VerificationKey {
    VerificationKey::Es256(P256PublicKey::from_jwk(&object(jwk)).unwrap())
}

fn rs256(jwk: Value) -> VerificationKey {
    VerificationKey::Rs256(RsaPublicKey::from_jwk(&object(jwk)).unwrap())
}

/// The payload is accepted as it is, and refused when one bit of payload or signature changes.
fn assert_verifies(jws: &str, key: &VerificationKey, payload: &str) {
    assert_eq!(Jws::parse(jws).unwrap().verify(key).unwrap(), payload.as_bytes());
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let swapped = format!("{}{}{}", &signature[4..8], &signature[..4], &signature[8..]);
    for altered in [format!("{header}.e30.{signature}"), format!("{signed}.{swapped}")] {
        assert_eq!(Jws::parse(&altered).map(|jws| jws.verify(key).map(<[u8]>::to_vec)), Ok(Err(JwsError::Signature)));
    }
}

const JOE: &str = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
const FRODO: &str = "It\u{2019}s a dangerous business, Frodo, going out your door. You step onto the road, and if you don't keep your feet, there\u{2019}s no knowing where you might be swept off to.";

#[test]
fn the_rs256_example_of_rfc_7515_a_2_is_verified() {
    let key = rs256(json!({
        "kty": "RSA", "e": "AQAB",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    }));
    assert_verifies(
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        &key,
        JOE,
    );
}

#[test]
fn the_es256_example_of_rfc_7515_a_3_is_verified() {
    let key = es256(json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }));
    assert_verifies(
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        &key,
        JOE,
    );
}

#[test]
fn the_unsecured_example_of_rfc_7515_a_5_is_refused_by_every_key() {
    let jws = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
    let secret = VerificationKey::Hs256(HmacKey::new(&Secret::from_bytes(vec![0; 32])).unwrap());
    assert_eq!(Jws::parse(jws).unwrap().verify(&secret), Err(JwsError::Algorithm));
}

#[test]
fn the_critical_extension_of_rfc_7515_appendix_e_is_refused() {
    let jws = "eyJhbGciOiJub25lIiwNCiAiY3JpdCI6WyJodHRwOi8vZXhhbXBsZS5jb20vVU5ERUZJTkVEIl0sDQogImh0dHA6Ly9leGFtcGxlLmNvbS9VTkRFRklORUQiOnRydWUNCn0.RkFJTA.";
    assert_eq!(Jws::parse(jws).unwrap_err(), JwsError::CriticalHeader);
}

#[test]
fn the_rs256_example_of_rfc_7520_4_1_is_verified() {
    let key = rs256(json!({
        "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "e": "AQAB",
        "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw",
    }));
    assert_verifies(
        "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
        &key,
        FRODO,
    );
}

#[test]
fn the_hs256_example_of_rfc_7520_4_4_is_verified() {
    let secret = Secret::from_base64("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg").unwrap();
    assert_verifies(
        "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
        &VerificationKey::Hs256(HmacKey::new(&secret).unwrap()),
        FRODO,
    );
}

#[test]
fn the_key_set_of_rfc_7517_a_1_has_one_key_for_signatures() {
    // The EC key of that set is for encryption.
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", "use": "enc", "kid": "1"},
        {"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"},
    ]});
    assert_eq!(KeySet::from_jwks(&set.to_string()).unwrap().len(), 1);
}

#[derive(Deserialize)]
struct Wycheproof {
    #[serde(rename = "numberOfTests")]
    number_of_tests: usize,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    jwk: Map<String, Value>,
    /// Number, message and signature in hex, verdict.
    tests: Vec<(u32, String, String, String)>,
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn wycheproof_s_p_256_signatures_get_their_verdicts() {
    // The file names its source.
    let vectors: Wycheproof = serde_json::from_str(include_str!("data/wycheproof_ecdsa_p256.json")).unwrap();
    let mut count = 0;
    for group in &vectors.groups {
        let key = P256PublicKey::from_jwk(&group.jwk).unwrap();
        for (number, message, signature, verdict) in &group.tests {
            let (message, signature) = (unhex(message), unhex(signature));
            let expected = verdict == "valid";
            assert_eq!(key.verifies(&message, &signature), expected, "test {number}");
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &message);
            assert_eq!(key.verifies_digest(hash.as_ref().try_into().unwrap(), &signature), expected, "test {number}");
            count += 1;
        }
    }
    assert_eq!(count, vectors.number_of_tests);
}
