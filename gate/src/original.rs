//! The request that a gateway asks about, as its client sent it.

use http::{HeaderMap, HeaderName, Method, Request};

/// Where gateways ask that say in headers what they ask about: nginx, Caddy, Traefik, HAProxy.
pub const FORWARD_AUTH: &str = "/forward-auth";
/// Below which gateways ask that send the request itself, without its body as a rule: Envoy.
pub const EXT_AUTHZ: &str = "/ext-authz";

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Envoy's mark of a body that it cut.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// A request as its client sent it, but for its headers, which a question has as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// The method.
    pub method: Method,
    /// The request target (RFC 9112 section 3.2).
    pub target: String,
    /// `Host`, where the gateway says it.
    pub host: Option<String>,
}

/// Why a question is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoQuestion {
    /// It asks for something else.
    NotFound,
    /// The gateway's configuration lacks something, for its operator.
    Incomplete(String),
}

impl Original {
    /// The request that a gateway asks about.
    ///
    /// # Errors
    /// When it is no question, or an incomplete one.
    pub fn of<B>(request: &Request<B>) -> Result<Self, NoQuestion> {
        let path = request.uri().path();
        if path == FORWARD_AUTH {
            return Self::forwarded(request.headers());
        }
        let target = request.uri().path_and_query().map(http::uri::PathAndQuery::as_str);
        match target.and_then(|target| target.strip_prefix(EXT_AUTHZ)) {
            Some(target) if target.starts_with('/') => Ok(Self {
                method: request.method().clone(),
                target: target.to_owned(),
                host: match request.uri().authority() {
                    Some(authority) => Some(authority.as_str().to_owned()),
                    None => single(request.headers(), &http::header::HOST)?,
                },
            }),
            Some("") => Err(NoQuestion::Incomplete(format!(
                "the path of the request must follow {EXT_AUTHZ}, as Envoy's path_prefix does it"
            ))),
            _ => Err(NoQuestion::NotFound),
        }
    }

    fn forwarded(headers: &HeaderMap) -> Result<Self, NoQuestion> {
        let needed = |name: &HeaderName| {
            let missing = || NoQuestion::Incomplete(format!("the gateway does not send {name}"));
            single(headers, name)?.ok_or_else(missing)
        };
        let method = needed(&FORWARDED_METHOD)?;
        Ok(Self {
            method: method.parse().map_err(|_| NoQuestion::Incomplete(format!("{FORWARDED_METHOD} is no method")))?,
            target: needed(&FORWARDED_URI)?,
            host: single(headers, &FORWARDED_HOST)?,
        })
    }
}

/// Whether the gateway cut the body that it sends.
#[must_use]
pub fn body_is_cut(headers: &HeaderMap) -> bool {
    headers.get_all(PARTIAL_BODY).iter().any(|value| value != "false")
}

/// The value of a header that a gateway sets. A second one would be its client's.
fn single(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, NoQuestion> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => match value.to_str() {
            Ok(value) => Ok(Some(value.to_owned())),
            Err(_) => Err(NoQuestion::Incomplete(format!("{name} is not ASCII"))),
        },
        (None, _) => Ok(None),
        (Some(_), Some(_)) => {
            Err(NoQuestion::Incomplete(format!("there is more than one {name}: the gateway must replace its client's")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(uri: &str, headers: &[(&str, &str)]) -> Result<Original, NoQuestion> {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Original::of(&request.body(()).unwrap())
    }

    fn original(method: Method, target: &str, host: Option<&str>) -> Result<Original, NoQuestion> {
        Ok(Original { method, target: target.to_owned(), host: host.map(str::to_owned) })
    }

    #[test]
    fn forwarded_headers_say_what_is_asked_about() {
        let headers =
            [("X-Forwarded-Method", "PUT"), ("X-Forwarded-Uri", "/a?b=c"), ("X-Forwarded-Host", "api.shop.co")];
        assert_eq!(question("/forward-auth", &headers), original(Method::PUT, "/a?b=c", Some("api.shop.co")));
        assert_eq!(question("/forward-auth", headers.get(..2).unwrap()), original(Method::PUT, "/a?b=c", None));
    }

    #[test]
    fn a_question_that_lacks_something_or_has_it_twice_is_told() {
        let complete = [("X-Forwarded-Method", "PUT"), ("X-Forwarded-Uri", "/a"), ("X-Forwarded-Host", "a")];
        for left_out in ["X-Forwarded-Method", "X-Forwarded-Uri"] {
            let headers: Vec<_> = complete.into_iter().filter(|(name, _)| *name != left_out).collect();
            let Err(NoQuestion::Incomplete(why)) = question("/forward-auth", &headers) else { panic!("{left_out}") };
            assert!(why.eq_ignore_ascii_case(&format!("the gateway does not send {left_out}")), "{why}");
        }
        for twice in complete {
            let headers: Vec<_> = complete.into_iter().chain([twice]).collect();
            let Err(NoQuestion::Incomplete(why)) = question("/forward-auth", &headers) else { panic!("{twice:?}") };
            assert!(why.contains("more than one"), "{why}");
        }
        let headers = [("X-Forwarded-Method", "P T"), ("X-Forwarded-Uri", "/a")];
        assert!(matches!(question("/forward-auth", &headers), Err(NoQuestion::Incomplete(_))));
    }

    #[test]
    fn envoy_sends_the_request_itself_below_a_prefix() {
        let host = [("Host", "api.shop.co"), ("X-Forwarded-Uri", "/other"), ("X-Forwarded-Method", "GET")];
        assert_eq!(question("/ext-authz/a%2Fb?c", &host), original(Method::POST, "/a%2Fb?c", Some("api.shop.co")));
        assert_eq!(question("/ext-authz/", &host), original(Method::POST, "/", Some("api.shop.co")));
        assert_eq!(
            question("http://api.shop.co/ext-authz//a", &[]),
            original(Method::POST, "//a", Some("api.shop.co"))
        );
        assert!(matches!(question("/ext-authz", &host), Err(NoQuestion::Incomplete(_))));
        for other in ["/", "/forward-auth/", "/ext-authzz", "/forward-authx", "/ext-authz?x", "/favicon.ico"] {
            let asked = question(other, &host);
            assert!(matches!(asked, Err(NoQuestion::NotFound)), "{other} {asked:?}");
        }
    }

    #[test]
    fn a_body_is_whole_unless_envoy_says_otherwise() {
        let mut headers = HeaderMap::new();
        assert!(!body_is_cut(&headers));
        headers.insert("x-envoy-auth-partial-body", "false".parse().unwrap());
        assert!(!body_is_cut(&headers));
        headers.append("x-envoy-auth-partial-body", "true".parse().unwrap());
        assert!(body_is_cut(&headers));
    }
}
