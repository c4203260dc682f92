//! Server API v3, which Fingerprint ends: the visit is looked up, and the bot result where the visit does not have it.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::check::client::{CheckRequest, ServerResponse, with_segments};
use crate::check::outcome::CheckError;
use crate::check::site_table::Vendor;

use super::DEFINITION;
use super::event::{Event, Identification, time_of};

/// A visitor in the response to `GET /visitors/{id}`; what is not needed here stays in the full response.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visitor {
    visitor_id: String,
    #[serde(default)]
    visits: Vec<Visit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visit {
    request_id: String,
    timestamp: f64,
    /// The page.
    url: Option<String>,
    browser_details: Option<BrowserDetails>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BrowserDetails {
    bot_probability: Option<f64>,
}

/// Looks a visit up. `None`: there is none.
pub(super) async fn look_up(
    vendor: &Vendor,
    identification: &Identification<'_>,
    needs_bot_result: bool,
    request: &CheckRequest<'_>,
) -> Result<(Option<Event>, Map<String, Value>), CheckError> {
    // Visits are a visitor's.
    let Some(visitor_id) = identification.visitor_id else {
        return Ok((None, Map::new()));
    };
    let get = |segments: &[&str]| {
        let url = with_segments(&vendor.url, segments)?;
        Ok(request.client.get(url).header("Auth-API-Key", request.secrets.secret))
    };
    let send = |request_builder| request.client.send(DEFINITION.display_name, request_builder);
    let visits = get(&["visitors", visitor_id])?.query(&[("request_id", identification.event_id)]);
    let response = send(visits).await?;
    let (mut found, full) = read(identification, &response)?;
    if let Some(event) = found.as_mut().filter(|event| needs_bot_result && event.bot_probability.is_none()) {
        let response = send(get(&["events", identification.event_id])?).await?;
        event.bot_probability = Some(bot_probability(&response)?);
    }
    Ok((found, full))
}

fn read(
    identification: &Identification<'_>,
    response: &ServerResponse,
) -> Result<(Option<Event>, Map<String, Value>), CheckError> {
    if response.status == 404 {
        return Ok((None, Map::new()));
    }
    if !response.is_success() {
        return Err(error_of(response));
    }
    let Ok(known) = serde_json::from_slice::<Visitor>(&response.body) else {
        return Err(CheckError::Unavailable("Fingerprint gave a response that is not understood".to_owned()));
    };
    let visit = known.visits.into_iter().find(|visit| visit.request_id == identification.event_id);
    let event = visit.map(|visit| Event {
        event_id: visit.request_id,
        visitor_id: Some(known.visitor_id),
        made: time_of(visit.timestamp),
        clock_offset: response.clock_offset,
        url: visit.url,
        is_replayed: false,
        bot_probability: visit.browser_details.and_then(|details| details.bot_probability),
    });
    Ok((event, response.object().unwrap_or_default()))
}

/// `products.botd.data.bot.result`: a bot, good or bad, is certainly a bot.
fn bot_probability(event: &ServerResponse) -> Result<f64, CheckError> {
    if !event.is_success() {
        return Err(error_of(event));
    }
    let value: Value = serde_json::from_slice(&event.body).unwrap_or_default();
    match value.pointer("/products/botd/data/bot/result").and_then(Value::as_str) {
        Some("notDetected") => Ok(0.0),
        Some("good" | "bad") => Ok(1.0),
        _ => Err(CheckError::Unavailable("Fingerprint's bot detection gave no result".to_owned())),
    }
}

fn error_of(response: &ServerResponse) -> CheckError {
    let object = response.object();
    let text = object.as_ref().and_then(|object| object.get("error")).and_then(Value::as_str);
    CheckError::of_status_and_text(DEFINITION.display_name, response.status, text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use approov_verify::time::UnixTime;
    use serde_json::json;

    use super::*;
    use crate::allowed_origins::AllowedOrigins;

    fn response(status: u16, body: &Value) -> ServerResponse {
        ServerResponse { status, body: body.to_string().into_bytes(), clock_offset: 0 }
    }

    fn read(status: u16, body: &Value) -> Result<Option<Event>, CheckError> {
        let allowed_origins = &AllowedOrigins::default();
        let now = UnixTime::from_millis(0);
        let identification = Identification { visitor_id: Some("V"), event_id: "R", allowed_origins, now };
        super::read(&identification, &response(status, body)).map(|(event, _)| event)
    }

    fn visit() -> Value {
        json!({"visitorId": "V", "visits": [
            {"requestId": "Q", "timestamp": 1},
            {"requestId": "R", "timestamp": 2, "url": "https://a.example/", "browserDetails": {"botProbability": 0.3}},
        ]})
    }

    #[test]
    fn the_visit_of_the_request_is_found() {
        let event = read(200, &visit()).unwrap().unwrap();
        assert_eq!((event.event_id.as_str(), event.visitor_id.as_deref()), ("R", Some("V")));
        assert_eq!((event.made.as_millis(), event.url.as_deref()), (2, Some("https://a.example/")));
        assert_eq!(event.bot_probability, Some(0.3));
        assert!(read(200, &json!({"visitorId": "V", "visits": []})).unwrap().is_none());
        assert!(read(404, &json!({"error": "visitor not found"})).unwrap().is_none());
    }

    #[test]
    fn what_is_no_response_about_a_visitor_is_an_error() {
        assert_eq!(
            read(403, &json!({"error": "secret key is wrong"})).err(),
            Some(CheckError::Misconfigured("Fingerprint responded with status 403: secret key is wrong".to_owned()))
        );
        for status in [429, 500, 503] {
            let error = CheckError::Unavailable(format!("Fingerprint responded with status {status}"));
            assert_eq!(read(status, &visit()).err(), Some(error));
        }
        assert!(read(200, &json!({"visits": 3})).is_err());
    }

    #[test]
    fn a_bot_is_one_whether_good_or_bad() {
        let of = |result: &str| {
            let event = json!({"products": {"botd": {"data": {"bot": {"result": result}}}}});
            bot_probability(&response(200, &event))
        };
        assert_eq!([of("notDetected"), of("good"), of("bad")], [Ok(0.0), Ok(1.0), Ok(1.0)]);
        assert!(of("?").is_err());
    }
}
