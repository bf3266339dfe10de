//! What browsers are told, and who finds it out: a task that looks at the database once a second while somebody listens. So a
//! browser at one server hears what came in at another.

use std::time::Duration;

use serde_json::json;

use crate::app::App;
use crate::store::nodes;

/// How often it is looked; so at most one event of a kind in that time.
const EVERY: Duration = Duration::from_secs(1);

/// Names of nodes in one event; more are `more`.
const MAX_NODES: i64 = 200;

/// Other servers' clocks may be behind by so many milliseconds.
const OVERLAP: i64 = 2000;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// To be sent as it is.
    Told {
        /// `summary`, `node`, `rollout`.
        name: &'static str,
        /// One line of JSON.
        data: String,
    },
    /// The server ends.
    Ending,
}

/// Looks, and tells, until the server ends.
pub async fn watch(app: App) {
    let mut after = app.now() * 1000;
    let mut last = String::new();
    let mut told: Vec<String> = Vec::new();
    let mut rollouts = app.published().rollouts.clone();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if app.events.receiver_count() == 0 {
            after = app.now() * 1000;
            continue;
        }
        let from = after - OVERLAP;
        match app.store.read(move |sql| nodes::changed_since(sql, from, MAX_NODES + 1)).await {
            Ok((ids, until)) => {
                if !ids.is_empty() && ids != told {
                    let more = ids.len() as i64 > MAX_NODES;
                    let named = &ids[..ids.len().min(MAX_NODES as usize)];
                    tell(&app, "node", json!({"ids": named, "more": more}).to_string());
                    told = ids;
                }
                after = after.max(until);
            }
            Err(why) => log::warn!("nobody can be told what changed: {why}"),
        }
        if let Ok(summary) = crate::api::summary_of(&app).await {
            let summary = summary.to_string();
            if summary != last {
                tell(&app, "summary", summary.clone());
                last = summary;
            }
        }
        let now = app.published().rollouts.clone();
        if now != rollouts {
            let changed = now.iter().filter(|it| !rollouts.contains(it)).map(|it| it.policy());
            tell(&app, "rollout", json!({"ids": changed.collect::<Vec<_>>()}).to_string());
            rollouts = now;
        }
    }
}

fn tell(app: &App, name: &'static str, data: String) {
    // Without listeners there is nobody to tell.
    let _ = app.events.send(Event::Told { name, data });
}
