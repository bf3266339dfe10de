//! What went wrong, as every client can read it: `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::ingest::queue::Failed;
use crate::store::StoreError;

/// Seconds after which whoever finds the database away may come again.
const AGAIN: u64 = 10;

/// A problem. `detail` is for people, and says what to do where something can be done.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    retry_after: Option<u64>,
}

/// What handlers return.
pub type Answer = Result<Response, Problem>;

impl Problem {
    /// A problem of this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { status, detail: detail.into(), retry_after: None }
    }

    /// What it says to people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// 429.
    pub fn too_many(seconds: u64) -> Self {
        Problem {
            retry_after: Some(seconds),
            ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address")
        }
    }

    /// 503.
    pub fn busy(detail: impl Into<String>) -> Self {
        Problem { retry_after: Some(AGAIN), ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 500: a mistake of this program, which the log describes and the answer does not.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        log::error!("a request failed: {why}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the server made a mistake; its log has more")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(why) => {
                log::warn!("the database is away: {why}");
                Problem::busy("the database is away; come again")
            }
            StoreError::Broken(why) => Problem::internal(why),
        }
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Busy(why) => {
                log::warn!("reports are sent back: {why}");
                Problem::busy("reports cannot be written at the moment; come again")
            }
            Failed::Broken(why) => Problem::internal(why),
        }
    }
}
