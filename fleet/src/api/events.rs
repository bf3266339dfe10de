//! Server-sent events: what browsers are told without asking.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;

use super::answer::Query;
use super::problem::{Answer, Problem};
use crate::app::App;
use crate::events::Event;

/// Streams at the same time.
const MAX_STREAMS: usize = 1000;

/// A stream ends after so long, and is opened again by the browser: with a look at whether it still may.
const LIFE: Duration = Duration::from_secs(15 * 60);

/// So often something is sent, so that no proxy takes the line for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// `GET /api/v1/events`
pub async fn events(State(app): State<App>, query: Query) -> Answer {
    query.only(&[], &[])?;
    if app.events.receiver_count() >= MAX_STREAMS {
        return Err(Problem::busy("too many are looking; the dashboard asks again"));
    }
    let receiver = app.events.subscribe();
    // The first thing to be told is how it is now.
    let first = super::summary::of(&app).await?;
    let first = Some(Event::Told { name: "summary", data: first.to_string() });
    let end = Instant::now() + LIFE;
    let stream = stream::unfold((receiver, first), move |(mut receiver, mut first)| async move {
        loop {
            if let Some(Event::Told { name, data }) = first.take() {
                let sent = Sent::default().event(name).data(data);
                return Some((Ok::<_, Infallible>(sent), (receiver, None)));
            }
            let left = end.checked_duration_since(Instant::now())?;
            match tokio::time::timeout(left, receiver.recv()).await {
                Ok(Ok(event @ Event::Told { .. })) => first = Some(event),
                // Nobody shall look at a server that is gone.
                Ok(Ok(Event::Ending) | Err(RecvError::Closed)) | Err(_) => return None,
                // Too slow to be told everything: what comes next says it all.
                Ok(Err(RecvError::Lagged(_))) => {}
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}
