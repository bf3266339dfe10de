//! How fast bundles may come at this hour, if at all. Pure: the time is an argument.

use std::cell::RefCell;

use format::rate::Rate;
use format::time::UnixTime;
use format::window::Window;

use super::throttle::Flow;
use crate::config::{Metered, Settings};
use host::schedule::{self, Gate, Hours};
use host::zone::Zone;

/// The settings that say so.
pub struct Rule<'s> {
    settings: &'s Settings,
    zone: Zone,
    /// When the step ends at the latest.
    end: UnixTime,
    /// A person has called: neither windows nor the cost of the link keep the bytes back.
    is_hurried: bool,
    /// What the node's policy says beside them.
    policy: RefCell<(Option<Hours>, Option<Rate>)>,
}

impl<'s> Rule<'s> {
    /// The rule for a step that begins at `now`.
    pub fn new(settings: &'s Settings, zone: Zone, now: UnixTime, is_hurried: bool) -> Self {
        let longest = i64::try_from(settings.fetch.step_timeout.as_secs()).unwrap_or(i64::MAX);
        Rule { settings, zone, end: now.plus(longest), is_hurried, policy: RefCell::default() }
    }

    /// From now on the policy counts too: bytes need its windows as well, and the lower of both caps holds.
    pub fn obey(&self, hours: Option<Hours>, rate: Option<Rate>) {
        self.policy.replace((hours, rate));
    }

    /// What holds at `now`.
    pub fn flow(&self, now: UnixTime) -> Flow {
        let fetch = &self.settings.fetch;
        if now >= self.end {
            return Flow::Stop(
                "the step has taken as long as [fetch] step-timeout allows; the next one goes on".into(),
            );
        }
        let (hours, slower) = &*self.policy.borrow();
        let own = schedule::gate(fetch.transfer_windows.as_deref(), &self.zone, now);
        let by_policy = hours.as_ref().map_or(Gate::Open { until: None }, |hours| hours.gate(now));
        if !self.is_hurried
            && let Gate::Closed { until } = schedule::both(own, by_policy)
        {
            return Flow::Stop(format!("the transfer window is closed; it opens at {until}"));
        }
        let open = |window: &Window| {
            matches!(schedule::gate(Some(std::slice::from_ref(window)), &self.zone, now), Gate::Open { .. })
        };
        let of_the_hour = fetch.rates.iter().find(|(window, _)| open(window)).map(|(_, rate)| *rate);
        let own = of_the_hour.unwrap_or(self.settings.rate);
        let rate = [own, slower.and_then(Rate::bytes_per_second)].into_iter().flatten().min();
        match fetch.metered {
            Metered::Pause if !self.is_hurried => Flow::Stop(
                "this link costs by the byte ([fetch] metered); the bundle waits for another one".into(),
            ),
            Metered::Slow if !self.is_hurried => {
                Flow::Rate(Some(rate.unwrap_or(fetch.floor).min(fetch.floor)))
            }
            _ => Flow::Rate(rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixTime {
        text.parse().unwrap()
    }

    fn settings(fetch: &str) -> Settings {
        let folder = std::env::temp_dir().join(format!(
            "prestage-rule-{}-{:?}.toml",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&folder, format!("[fetch]\n{fetch}")).unwrap();
        let settings = crate::config::load(std::path::Path::new("/"), Some(&folder)).unwrap();
        std::fs::remove_file(&folder).unwrap();
        settings
    }

    /// What holds at `now` with this `[fetch]`, in Berlin.
    fn flow(fetch: &str, now: &str, is_hurried: bool) -> Flow {
        let settings = settings(fetch);
        let zone = Zone::named("Europe/Berlin").unwrap();
        Rule::new(&settings, zone, at("2026-11-23T00:00:00Z"), is_hurried).flow(at(now))
    }

    const BY_THE_HOUR: &str = "rate = '8Mbit/s'\nrates = [\n\
        { window = 'Mon-Fri 08:00-20:00', rate = '256kbit/s' },\n\
        { window = 'Mon 19:00-23:00', rate = 'unlimited' }]\n";

    #[test]
    fn the_first_window_that_is_open_gives_the_cap_in_the_nodes_own_zone() {
        for (now, rate) in [
            ("2026-11-23T06:59:59Z", Some(1_000_000)), // 07:59:59 in Berlin
            ("2026-11-23T07:00:00Z", Some(32_000)),
            ("2026-11-23T18:30:00Z", Some(32_000)), // both are open: the first
            ("2026-11-23T19:00:00Z", None),
            ("2026-11-23T22:00:00Z", Some(1_000_000)),
        ] {
            assert_eq!(flow(BY_THE_HOUR, now, false), Flow::Rate(rate), "{now}");
        }
    }

    #[test]
    fn bytes_wait_for_the_transfer_window_and_a_person_does_not() {
        let night = "transfer-windows = ['20:00-06:00']";
        let Flow::Stop(why) = flow(night, "2026-11-23T12:00:00Z", false) else { panic!("it is closed") };
        assert!(why.contains("2026-11-23T19:00:00Z"), "{why}");
        assert_eq!(flow(night, "2026-11-23T12:00:00Z", true), Flow::Rate(None));
        assert_eq!(flow(night, "2026-11-23T20:00:00Z", false), Flow::Rate(None));
    }

    #[test]
    fn a_metered_link_carries_nothing_or_the_floor() {
        let now = "2026-11-23T12:00:00Z";
        assert!(matches!(flow("metered = 'pause'", now, false), Flow::Stop(_)));
        assert_eq!(flow("metered = 'pause'", now, true), Flow::Rate(None));
        assert_eq!(flow("metered = 'slow'\nfloor = '4kB/s'", now, false), Flow::Rate(Some(4000)));
        assert_eq!(flow("metered = 'slow'\nrate = '1kB/s'", now, false), Flow::Rate(Some(1000)));
    }

    #[test]
    fn a_policy_closes_and_slows_what_the_node_itself_leaves_open() {
        let settings = settings("rate = '1MB/s'");
        let zone = Zone::named("Europe/Berlin").unwrap();
        let rule = Rule::new(&settings, zone, at("2026-11-23T00:00:00Z"), false);
        let noon = at("2026-11-23T12:00:00Z");
        assert_eq!(rule.flow(noon), Flow::Rate(Some(1_000_000)));
        rule.obey(None, Some("500kB/s".parse().unwrap()));
        assert_eq!(rule.flow(noon), Flow::Rate(Some(500_000)));
        let windows = vec!["20:00-06:00".parse().unwrap()];
        let timezone = Some("America/New_York".parse().unwrap());
        let schedule = format::policy::Schedule { windows, timezone };
        rule.obey(Some(Hours::resolve(&schedule, &Zone::UTC).unwrap()), None);
        let Flow::Stop(why) = rule.flow(noon) else { panic!("it is 7 in the morning there") };
        assert!(why.contains("2026-11-24T01:00:00Z"), "{why}");
    }

    #[test]
    fn a_step_ends() {
        assert!(matches!(flow("step-timeout = '1h'", "2026-11-23T01:00:00Z", true), Flow::Stop(_)));
        assert_eq!(flow("step-timeout = '1h'", "2026-11-23T00:59:59Z", true), Flow::Rate(None));
    }
}
