//! The same vectors through each library that is compiled in. (What is built on them is tested with each by itself:
//! `cargo test -p approov-verify`, and the same with `--no-default-features --features rustcrypto`.)

use super::*;
use crate::encoding::decode_base64url;
use serde_json::Value;

macro_rules! with_each_library {
    ($($property:ident),* $(,)?) => {
        #[cfg(feature = "aws-lc-rs")]
        mod by_aws_lc {
            $(#[test] fn $property() { super::$property::<crate::crypto::aws_lc::AwsLc>(); })*
        }
        #[cfg(feature = "rustcrypto")]
        mod by_rust_crypto {
            $(#[test] fn $property() { super::$property::<crate::crypto::rust_crypto::RustCrypto>(); })*
        }
    };
}

with_each_library!(
    wycheproof_s_p_256_signatures_get_their_verdicts,
    a_point_that_is_not_on_the_curve_is_no_key,
    the_hmacs_of_rfc_4231_are_made_and_recognised,
    the_key_derivation_of_rfc_5869_a_3_is_done,
    the_content_of_rfc_7516_a_1_is_decrypted_and_no_altered_one,
    the_rsa_signature_of_rfc_7515_a_2_is_verified_and_no_altered_one,
    rsa_keys_are_of_2048_to_8192_bits,
);

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn base64url(text: &str) -> Vec<u8> {
    decode_base64url(text).unwrap()
}

fn wycheproof_s_p_256_signatures_get_their_verdicts<P: Provider>() {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/data/wycheproof_ecdsa_p256.json")).unwrap();
    let mut count = 0;
    for group in vectors["groups"].as_array().unwrap() {
        let coordinate = |name: &str| base64url(group["jwk"][name].as_str().unwrap());
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let key = P::p256(point.as_slice().try_into().unwrap()).unwrap();
        for test in group["tests"].as_array().unwrap() {
            let [message, signature] = [&test[1], &test[2]].map(|hex| unhex(hex.as_str().unwrap()));
            let valid = test[3] == "valid";
            assert_eq!(P::p256_verifies(&key, &message, &signature), valid, "{test}");
            assert_eq!(P::p256_verifies_digest(&key, &P::sha256(&message), &signature), valid, "{test}");
            count += 1;
        }
    }
    assert_eq!(Value::from(count), vectors["numberOfTests"]);
}

fn a_point_that_is_not_on_the_curve_is_no_key<P: Provider>() {
    // The key of RFC 9449 section 4.1.
    let x = base64url("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs");
    let y = base64url("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA");
    let key = |first: u8, x: &[u8], y: &[u8]| P::p256([&[first], x, y].concat().as_slice().try_into().unwrap());
    assert!(key(4, &x, &y).is_some());
    assert!(key(4, &y, &x).is_none());
    assert!(key(4, &[0; 32], &[0; 32]).is_none());
    assert!(key(4, &[255; 32], &y).is_none());
    // Other forms of a point have other first bytes.
    for first in [0, 2, 3, 5] {
        assert!(key(first, &x, &y).is_none(), "{first}");
    }
}

fn the_hmacs_of_rfc_4231_are_made_and_recognised<P: Provider>() {
    for (key, data, expected) in [
        (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ] {
        let key = P::hmac(&key).unwrap();
        let tag = P::sign(&key, &data);
        assert_eq!(tag.as_slice(), unhex(expected));
        assert!(P::has_signed(&key, &data, &tag));
        assert!(!P::has_signed(&key, &data, &tag[..31]) && !P::has_signed(&key, &data, &[]));
        assert!(!P::has_signed(&key, &data[1..], &tag));
    }
}

fn the_key_derivation_of_rfc_5869_a_3_is_done<P: Provider>() {
    // Without salt and info; the first 32 of its 42 bytes.
    let expected = unhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
    let derived = P::derived_hmac(&[0x0b; 22], b"").unwrap();
    assert_eq!(P::sign(&derived, b"message"), P::sign(&P::hmac(&expected).unwrap(), b"message"));
}

fn the_content_of_rfc_7516_a_1_is_decrypted_and_no_altered_one<P: Provider>() {
    let key = [
        177, 161, 244, 128, 84, 143, 225, 115, 63, 180, 3, 255, 107, 154, 212, 246, 138, 7, 110, 91, 112, 46, 34, 105,
        47, 130, 203, 46, 122, 234, 64, 252,
    ];
    let iv: [u8; 12] = base64url("48V1_ALb6US04U3b").try_into().unwrap();
    let aad = b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ";
    let text = base64url("5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A");
    let tag: [u8; 16] = base64url("XFBoMYUZodetZdvTiFvSkQ").try_into().unwrap();
    let aes = P::aes(&key).unwrap();
    let content = P::open(&aes, &iv, aad, text.clone(), &tag);
    assert_eq!(content.unwrap(), b"The true sign of intelligence is not knowledge but imagination.");
    let mut altered = text.clone();
    altered[3] ^= 1;
    assert_eq!(P::open(&aes, &iv, aad, altered, &tag), None);
    assert_eq!(P::open(&aes, &iv, b"", text.clone(), &tag), None);
    assert_eq!(P::open(&aes, &iv, aad, text.clone(), &[0; 16]), None);
    assert_eq!(P::open(&aes, &[0; 12], aad, text, &tag), None);
}

const RSA_MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

fn the_rsa_signature_of_rfc_7515_a_2_is_verified_and_no_altered_one<P: Provider>() {
    let message = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = base64url(
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    );
    let key = P::rsa(&base64url(RSA_MODULUS), &[1, 0, 1]).unwrap();
    assert!(P::rsa_verifies(&key, message, &signature));
    assert!(!P::rsa_verifies(&key, &message[1..], &signature));
    for altered in [&signature[1..], &signature[..255], &[], &[0; 256], &[255; 256]] {
        assert!(!P::rsa_verifies(&key, message, altered));
    }
    assert!(!P::rsa_verifies(&key, message, &[&[0], signature.as_slice()].concat()));
}

fn rsa_keys_are_of_2048_to_8192_bits<P: Provider>() {
    let odd = |bits: usize| {
        let mut number = vec![0xff; bits / 8];
        if !bits.is_multiple_of(8) {
            number.insert(0, (1 << (bits % 8)) - 1);
        }
        number
    };
    for (bits, taken) in [(1024, false), (2040, false), (2048, true), (4096, true), (8192, true), (8200, false)] {
        assert_eq!(P::rsa(&odd(bits), &[1, 0, 1]).is_some(), taken, "{bits}");
    }
    assert!(P::rsa(&odd(2048), &[1]).is_none());
    assert!(P::rsa(&[&odd(2040)[..], &[0xfe]].concat(), &[1, 0, 1]).is_none());
    assert_eq!(P::rsa_of_spki(b"").err(), Some(NoRsaKey::Other));
}
