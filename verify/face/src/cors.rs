//! Requests of pages of other origins (CORS): preflights, which carry no token, and what pages may read.

use crate::options::Texts;
use http::HeaderMap;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// As its host gives it.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsOptions {
    origins: Texts,
    methods: Texts,
    headers: Texts,
    expose: Texts,
    credentials: bool,
    max_age: Option<u32>,
}

/// What pages of other origins may do.
pub struct Cors {
    origins: Vec<String>,
    methods: String,
    headers: String,
    exposed: String,
    credentials: bool,
    max_age: u32,
}

impl Cors {
    /// # Errors
    /// What cannot be allowed.
    pub fn new(options: CorsOptions) -> Result<Self, String> {
        let origins = options.origins.as_slice().to_vec();
        if origins.is_empty() {
            return Err("cors needs origins: those of your pages, such as https://app.example.com, or *".to_owned());
        }
        let any = origins.iter().any(|origin| origin == "*");
        if any && (origins.len() > 1 || options.credentials) {
            return Err("cors: \"*\" allows every origin: name no others with it, and no credentials".to_owned());
        }
        if let Some(bad) = origins.iter().find(|origin| *origin != "*" && !is_origin(origin)) {
            return Err(format!("cors: \"{bad}\" is not an origin such as https://app.example.com"));
        }
        let methods = options.methods.as_slice();
        let joined = |first: &[&str], more: &[String]| {
            first.iter().copied().chain(more.iter().map(String::as_str)).collect::<Vec<_>>().join(", ")
        };
        Ok(Self {
            origins,
            methods: if methods.is_empty() {
                "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned()
            } else {
                methods.join(", ")
            },
            headers: joined(&["Approov-Token", "Authorization", "Content-Type", "DPoP"], options.headers.as_slice()),
            exposed: joined(&["DPoP-Nonce", "WWW-Authenticate"], options.expose.as_slice()),
            credentials: options.credentials,
            max_age: options.max_age.unwrap_or(7200),
        })
    }

    /// The verdict on a preflight (Fetch Standard section 3.2.2), which is responded to without the application. `None` for
    /// other requests: what has a body, a token or no such header is never let pass as one.
    pub(crate) fn preflight(&self, method: &str, headers: &HeaderMap) -> Option<String> {
        let origin = headers.get(ORIGIN)?.to_str().ok()?;
        if method != "OPTIONS" || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut fields = self.fields(Some(origin));
        if self.allows(origin) {
            for (name, value) in [
                ("Access-Control-Allow-Methods", self.methods.clone()),
                ("Access-Control-Allow-Headers", self.headers.clone()),
                ("Access-Control-Max-Age", self.max_age.to_string()),
            ] {
                fields.insert(name.to_owned(), Value::from(value));
            }
            fields.remove("Access-Control-Expose-Headers");
        }
        Some(json!({"ok": false, "status": 204, "code": "preflight", "detail": "", "challenge": null, "headers": fields, "body": ""}).to_string())
    }

    /// The headers of a response to a request of this origin.
    #[must_use]
    pub fn fields(&self, origin: Option<&str>) -> Map<String, Value> {
        let mut fields = Map::new();
        let any = self.origins.iter().any(|allowed| allowed == "*");
        if !any {
            fields.insert("Vary".to_owned(), Value::from("Origin"));
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return fields };
        fields.insert("Access-Control-Allow-Origin".to_owned(), Value::from(if any { "*" } else { origin }));
        fields.insert("Access-Control-Expose-Headers".to_owned(), Value::from(self.exposed.clone()));
        if self.credentials {
            fields.insert("Access-Control-Allow-Credentials".to_owned(), Value::from("true"));
        }
        fields
    }

    fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }
}

/// As browsers write it: scheme and authority, nothing after.
fn is_origin(text: &str) -> bool {
    approov_verify::uri::HttpUri::parse(text).is_ok_and(|uri| uri.origin() == text)
}
