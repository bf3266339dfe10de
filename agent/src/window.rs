//! When an install may begin: the node's own hours, those of its policy, and whether what is to be done fits into what is left
//! of them. Windows as moments are `host::schedule`'s; how long installs take here is `transaction::pace`'s.

use format::policy::{PatchPolicy, Schedule};
use format::time::UnixTime;
use host::schedule::{self, Gate, Hours};

use crate::decide::Offer;
use crate::error::{Error, Exit, Result};
use crate::node::Node;
use crate::policy::Rule;
use crate::transaction::pace;

/// The node's own window.
pub(crate) fn own(node: &Node) -> Gate {
    schedule::gate(node.settings.windows.as_deref(), &node.zone(), node.now())
}

/// The maintenance window: the node's own and, where its policy has one, that as well. When it closes.
pub(crate) fn open_until(node: &Node, offer: &Offer, rule: &Rule, now: bool) -> Result<Option<UnixTime>> {
    let own = own(node);
    let by_policy = rule.policy().and_then(|policy| policy.schedule.as_ref());
    let by_policy = by_policy.map(|schedule| hours_of(node, rule, schedule)).transpose()?;
    let gate = by_policy.map_or(own, |hours| schedule::both(own, hours.gate(node.now())));
    match gate {
        Gate::Closed { until } if !now => Err(Error::new(
            Exit::Deferred,
            format!(
                "bundle {} is staged; the next maintenance window opens at {until}",
                offer.bundle.version
            ),
            "",
        )),
        Gate::Closed { .. } => Ok(None),
        Gate::Open { until } => Ok(until),
    }
}

/// A schedule of the node's policy, as hours of this node.
pub(crate) fn hours_of(node: &Node, rule: &Rule, schedule: &Schedule) -> Result<Hours> {
    Hours::resolve(schedule, &node.zone()).map_err(|e| {
        let policy = rule.policy().map(PatchPolicy::id).unwrap_or_default();
        let what = format!("policy {policy}: {e}");
        Error::deferred(what)
    })
}

/// Whether what earlier installs took here fits into what is left of the window. A person does not wait.
pub(crate) fn fits(node: &Node, window_ends: Option<UnixTime>, packages: u64, now: bool) -> Result<()> {
    let Some(end) = window_ends.filter(|_| !now) else { return Ok(()) };
    let takes = pace::estimate(&pace::load(&node.private("runs.json")), packages);
    let left = u64::try_from(end.since(node.now())).unwrap_or(0);
    if takes <= left {
        return Ok(());
    }
    let what = format!(
        "{packages} packages take about {} min here, and the maintenance window closes in {} min, at {end}",
        takes.div_ceil(60),
        left / 60
    );
    Err(Error::new(
        Exit::Deferred,
        what,
        "it is begun in the next window that is long enough; widen it if none is",
    ))
}
