//! What is done without being asked: the repository is read, rollouts counted and halted when too much fails, the past kept
//! and in the end forgotten. Of several servers one does what must be done once.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::app::App;
use crate::control::{self, Asked};
use crate::repository::{self, Published};
use crate::rollout::{self, Rollout, Rules};
use crate::store::audit::{self, Entry};
use crate::store::health::{self, Kept};
use crate::store::{Result, rollouts, summary};

/// Who is written down for what the server does by itself.
pub const SELF: &str = "prestage-fleet";

/// A lease is kept for so many seconds beyond the next turn.
const GRACE: i64 = 120;

/// The steps of the past, in seconds.
const MINUTES: i64 = 300;
const HOURS: i64 = 3600;

/// Rows of five minutes are kept for so many seconds: two days and a bit.
const MINUTES_KEPT: i64 = 50 * 3600;

/// Rows of an hour, and traffic.
const HOURS_KEPT: i64 = 400 * 86_400;

/// Reads the repository and counts rollouts, again and again.
pub async fn repository(app: App, name: String) {
    let Some(every) = app.settings.repository.as_ref().map(|it| it.every) else { return };
    loop {
        if let Err(why) = look(&app, &name).await {
            log::warn!("rollouts could not be counted: {why}");
        }
        // Either is a reason to look.
        let _ = tokio::time::timeout(every, app.wake.notified()).await;
    }
}

/// Reads and counts once; halts what must be.
///
/// # Errors
/// If the database is away.
async fn look(app: &App, name: &str) -> Result<()> {
    let Some(settings) = app.settings.repository.clone() else { return Ok(()) };
    let known = app.store.read(rollouts::known_bundles).await?;
    let now = app.now();
    let read = tokio::task::spawn_blocking(move || repository::read(&settings, &known, now)).await;
    let mut published = match read {
        Ok(published) => published,
        Err(why) => Published { problem: Some(why.to_string()), ..Published::default() },
    };
    if let Some(why) = &published.problem {
        log::warn!("the repository: {why}");
    }
    // What could not be read this time is as it was.
    if published.policies.is_empty() && published.problem.is_some() {
        let before = app.published();
        published.policies.clone_from(&before.policies);
        published.plans.clone_from(&before.plans);
        published.bundles.clone_from(&before.bundles);
        published.issued = published.issued.or(before.issued);
    }
    let new = published.bundles.clone();
    app.store
        .write(move |sql| new.iter().try_for_each(|bundle| rollouts::remember_bundle(sql, bundle)))
        .await?;
    published.rollouts = Arc::new(count(app, &published).await?);
    let rollouts = published.rollouts.clone();
    *app.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(published);
    for rollout in rollouts.iter() {
        if let Some(why) = &rollout.must_halt
            && app.settings.control.automatic_halt
        {
            halt(app, name, rollout, why).await?;
        }
    }
    Ok(())
}

async fn count(app: &App, published: &Published) -> Result<Vec<Rollout>> {
    let rules = Rules {
        now: app.now(),
        silent_before: app.silent_before(),
        stuck_after: app.settings.stuck_after,
        smallest_sample: app.settings.control.smallest_sample,
    };
    let (policies, plans) = (published.policies.clone(), published.plans.clone());
    let nodes = app.store.read(rollouts::members).await?;
    let counted = move || {
        let members = rollout::members(&policies, &nodes);
        let count = |policy: &format::policy::PatchPolicy| {
            let of = members.get(&policy.id()).map_or(&[][..], Vec::as_slice);
            rollout::look(policy, plans.get(&policy.id()), of, rules)
        };
        policies.iter().map(count).collect::<Vec<Rollout>>()
    };
    // A hundred thousand nodes are a tenth of a second.
    let counted = tokio::task::spawn_blocking(counted).await;
    let mut counted = counted.map_err(|e| crate::store::StoreError::Broken(e.to_string()))?;
    for rollout in &mut counted {
        let (id, bundle, finished) = (rollout.policy(), rollout.bundle.clone(), rollout.finished as i64);
        let now = rules.now;
        let seen = app.store.write(move |sql| rollouts::see(sql, &id, &bundle, finished, now)).await?;
        rollout.judge_progress(seen, rules);
    }
    Ok(counted)
}

/// Has a rollout halted, once, by one of the servers.
async fn halt(app: &App, name: &str, rollout: &Rollout, why: &str) -> Result<()> {
    let (policy, bundle, now) = (rollout.policy(), rollout.bundle.clone(), app.now());
    let (lease, holder) = (format!("halt {policy}"), name.to_owned());
    let until = now + app.settings.control.timeout.as_secs() as i64 + GRACE;
    let mine = {
        let (policy, bundle) = (policy.clone(), bundle.clone());
        app.store
            .write(move |sql| {
                Ok(health::lease(sql, &lease, &holder, until, now)?
                    && rollouts::halting(sql, &policy, &bundle, now)?)
            })
            .await?
    };
    if !mine {
        return Ok(());
    }
    log::error!("{policy}: {why}: it is halted");
    let asked = Asked {
        action: "halt".into(),
        policy: policy.clone(),
        reason: why.to_owned(),
        by: SELF.into(),
        ..Asked::default()
    };
    let result = control::run(app, asked).await;
    let outcome = match &result {
        Ok(_) => "done".to_owned(),
        Err(failed) => failed.to_string(),
    };
    let failed = result.is_err();
    let entry = Entry {
        id: 0,
        at: app.now(),
        who: SELF.into(),
        role: "server".into(),
        from: String::new(),
        action: "halt".into(),
        target: policy.clone(),
        reason: why.to_owned(),
        outcome,
    };
    app.store
        .write(move |sql| {
            if failed {
                // The next look tries again.
                rollouts::not_halted(sql, &policy, &bundle)?;
            }
            audit::record(sql, &entry)
        })
        .await
}

/// Keeps the past, and forgets what is old.
pub async fn past(app: App, name: String) {
    let mut ticks = tokio::time::interval(Duration::from_secs(60));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(why) = keep(&app, &name).await {
            log::warn!("the past could not be kept: {why}");
        }
    }
}

async fn keep(app: &App, name: &str) -> Result<()> {
    let (holder, now) = (name.to_owned(), app.now());
    let mine = app.store.write(move |sql| health::lease(sql, "past", &holder, now + GRACE, now)).await?;
    if !mine {
        return Ok(());
    }
    let numbers = app.numbers().await?;
    let states: BTreeMap<&String, &i64> = numbers.states.iter().collect();
    let states = serde_json::to_string(&states).unwrap_or_else(|_| "{}".into());
    app.store
        .write(move |sql| {
            for step in [MINUTES, HOURS] {
                let at = now - now.rem_euclid(step);
                let traffic = summary::traffic(sql, at - step, at)?;
                summary::remember(sql, step, &summary::Past { at, states: states.clone(), traffic })?;
            }
            Ok(())
        })
        .await?;
    let kept = Kept {
        reports: now - app.settings.reports_kept,
        audit: now - app.settings.audit_kept,
        minutes: now - MINUTES_KEPT,
        hours: now - HOURS_KEPT,
    };
    while app.store.write(move |sql| health::prune(sql, kept)).await? > 0 {}
    Ok(())
}
