//! Reading a policy: one walk over the tree that goes on after what is wrong, so that a person hears of all of it at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::name::{LabelKey, LabelValue, Namespace, PolicyName};
use super::selector::{Expression, Operator, Selector};
use super::table::{self, Field, MAX_DELAY_MINUTES, MAX_NODES, MAX_TIMEOUT_SECONDS};
use super::{
    Amount, BundleRef, KIND, MAX_ENTRIES, PatchPolicy, Percent, Reboot, Rollback, Rollout, RolloutType,
    Schedule, Transfer,
};
use crate::API_VERSION;
use crate::json::Json;
use crate::name::BundleVersion;
use crate::time::UnixTime;
use crate::window::Window;

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Path,
    /// What.
    pub fault: Fault,
}

/// What can be wrong at a place of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The place is a key that is not known there. A newer program may know it.
    Unknown {
        /// The keys that are.
        known: Vec<&'static str>,
    },
    /// The key that must be there and is not; the place is where it is missing.
    Missing(&'static str),
    /// A value of the wrong type.
    Type {
        /// What it must be, with its article: `text`, `a whole number`.
        wanted: &'static str,
        /// What it is, in the same way.
        found: &'static str,
    },
    /// A value of the right type that breaks a rule; which.
    Rule(String),
}

/// A place in a document, from its top: `spec.targets.selector.matchExpressions[0].key`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Step>);

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// To the member of this key.
    Key(String),
    /// To this entry of a list, from 0.
    Entry(usize),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the document");
        }
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) => {
                    f.write_str(if i > 0 { "." } else { "" })?;
                    // A key is hostile until it is known.
                    let plain = |c: char| c.is_ascii_alphanumeric() || "-_/".contains(c);
                    match key.len() <= 80 && !key.is_empty() && key.chars().all(plain) {
                        true => f.write_str(key)?,
                        false => write!(f, "{:?}", key.chars().take(80).collect::<String>())?,
                    }
                }
                Step::Entry(n) => write!(f, "[{n}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        match &self.fault {
            Fault::Unknown { .. } => {
                f.write_str("this program does not know that key: update the program, or take the key out")
            }
            Fault::Missing(key) => write!(f, "{key} is missing"),
            Fault::Type { wanted, found } => write!(f, "it must be {wanted}, not {found}"),
            Fault::Rule(rule) => f.write_str(rule),
        }
    }
}

/// Reads a policy.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn policy(tree: &Json<'_>) -> Result<PatchPolicy, Vec<Problem>> {
    Walk::whole(|walk| walk.policy(tree))
}

/// Where the walk is, and what was wrong on its way. A method that returns `None` has said why.
pub(crate) struct Walk {
    at: Path,
    problems: Vec<Problem>,
}

impl Walk {
    /// Reads a whole document.
    ///
    /// # Errors
    /// Everything that was said to be wrong.
    pub(crate) fn whole<T>(read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, Vec<Problem>> {
        let mut walk = Walk { at: Path::default(), problems: Vec::new() };
        let document = read(&mut walk);
        match document.filter(|_| walk.problems.is_empty()) {
            Some(document) => Ok(document),
            None => Err(walk.problems),
        }
    }

    fn policy(&mut self, json: &Json<'_>) -> Option<PatchPolicy> {
        // A document of another kind has other keys: to name each of them helps nobody.
        self.object(json)?;
        let version = self.required(json, "apiVersion", |w, j| w.one_of(j, &[API_VERSION]));
        let kind = self.required(json, "kind", |w, j| w.one_of(j, &[KIND]));
        version.and(kind)?;
        self.keys(json, || ["apiVersion", "kind", "metadata", "spec"].into_iter())?;
        let metadata = self.required(json, "metadata", Walk::metadata);
        self.required(json, "spec", |w, j| w.spec(j, metadata))
    }

    fn metadata(&mut self, json: &Json<'_>) -> Option<(PolicyName, Namespace)> {
        self.fields(json, table::METADATA)?;
        let namespace = self.optional(json, "namespace", Walk::parsed).unwrap_or_default();
        Some((self.required(json, "name", Walk::parsed)?, namespace))
    }

    fn spec(&mut self, json: &Json<'_>, metadata: Option<(PolicyName, Namespace)>) -> Option<PatchPolicy> {
        self.fields(json, table::SPEC)?;
        let bundle = self.required(json, "bundleRef", Walk::bundle);
        let selector = self.required(json, "targets", Walk::targets);
        let schedule = self.optional(json, "schedule", |w, j| {
            w.fields(j, table::SCHEDULE)?;
            w.schedule(j, "maintenanceWindow")
        });
        let rollout = self.optional(json, "rolloutStrategy", Walk::rollout);
        let rollback = self.optional(json, "rollback", Walk::rollback);
        let transfer = self.optional(json, "transfer", Walk::transfer);
        let reboot = self.optional(json, "reboot", |w, j| {
            let name = w.one_of(j, &Reboot::ALL.map(Reboot::as_str))?;
            Reboot::ALL.into_iter().find(|reboot| reboot.as_str() == name)
        });
        let release = self.optional(json, "quarantine", Walk::quarantine).unwrap_or_default();
        let paused = self.optional(json, "paused", Walk::truth).unwrap_or(false);
        let (name, namespace) = metadata?;
        Some(PatchPolicy {
            name,
            namespace,
            bundle: bundle?,
            selector: selector?,
            schedule,
            rollout,
            rollback,
            transfer,
            reboot,
            release,
            paused,
        })
    }

    fn bundle(&mut self, json: &Json<'_>) -> Option<BundleRef> {
        self.fields(json, table::BUNDLE)?;
        let checksum = self.optional(json, "checksum", Walk::parsed);
        Some(BundleRef { version: self.required(json, "version", Walk::parsed)?, checksum })
    }

    fn targets(&mut self, json: &Json<'_>) -> Option<Selector> {
        self.fields(json, table::TARGETS)?;
        self.required(json, "selector", Walk::selector)
    }

    fn selector(&mut self, json: &Json<'_>) -> Option<Selector> {
        self.fields(json, table::SELECTOR)?;
        let labels = self.optional(json, "matchLabels", Walk::labels).unwrap_or_default();
        let mut expressions =
            self.optional(json, "matchExpressions", |w, j| w.list(j, Walk::expression)).unwrap_or_default();
        expressions.sort_unstable();
        expressions.dedup();
        Some(Selector { labels, expressions })
    }

    fn labels(&mut self, json: &Json<'_>) -> Option<BTreeMap<LabelKey, LabelValue>> {
        let mut labels = BTreeMap::new();
        let members = self.object(json)?;
        self.limit(members.len(), MAX_ENTRIES)?;
        for (key, value) in members {
            let label = self.below(Step::Key(key.to_string()), |w| {
                let name = key.parse::<LabelKey>();
                let name = name.map_err(|e| w.rule::<()>(e.to_string())).ok();
                let value = w.parsed(value);
                Some((name?, value?))
            });
            labels.extend(label);
        }
        Some(labels)
    }

    fn expression(&mut self, json: &Json<'_>) -> Option<Expression> {
        self.fields(json, table::EXPRESSION)?;
        let key = self.required(json, "key", Walk::parsed);
        let operator =
            self.required(json, "operator", |w, j| w.one_of(j, &["In", "NotIn", "Exists", "DoesNotExist"]))?;
        let with_values = matches!(operator, "In" | "NotIn");
        if !with_values && json.member("values").is_some() {
            return self.below(Step::Key("values".into()), |w| {
                w.rule(format!("{operator} takes no values: take them out"))
            });
        }
        let mut values = BTreeSet::new();
        if with_values {
            let list = self.required(json, "values", |w, j| w.list(j, Walk::parsed))?;
            values.extend(list);
            if values.is_empty() {
                return self.below(Step::Key("values".into()), |w| {
                    w.rule(format!("{operator} needs at least one value"))
                });
            }
        }
        let operator = match operator {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            _ => Operator::DoesNotExist,
        };
        Some(Expression { key: key?, operator })
    }

    /// The windows under `key`, and their time zone; the keys have been looked at already.
    fn schedule(&mut self, json: &Json<'_>, key: &'static str) -> Option<Schedule> {
        let timezone = self.optional(json, "timezone", Walk::parsed);
        Some(Schedule { windows: self.required(json, key, Walk::windows)?, timezone })
    }

    /// One window, or a list of them.
    fn windows(&mut self, json: &Json<'_>) -> Option<Vec<Window>> {
        let mut windows: Vec<Window> = match json {
            Json::Array(_) => self.list(json, Walk::parsed)?,
            Json::String(_) => vec![self.parsed(json)?],
            _ => return self.wrong_type("a window or a list of windows", json),
        };
        if windows.is_empty() {
            return self.rule("an empty list never opens: pause the policy instead (paused: true)".into());
        }
        windows.sort_unstable();
        windows.dedup();
        Some(windows)
    }

    fn rollout(&mut self, json: &Json<'_>) -> Option<Rollout> {
        self.fields(json, table::ROLLOUT)?;
        let kind = self.required(json, "type", |w, j| w.one_of(j, &["RollingUpdate", "AllAtOnce"]));
        let canary = self.optional(json, "canary", Walk::canary);
        let failure_threshold = self.optional(json, "failureThreshold", |w, j| match j {
            Json::String(_) => w.parsed(j),
            _ => w.wrong_type("a share such as \"5%\"", j),
        });
        let max_unavailable_per_site = self.optional(json, "maxUnavailablePerSite", Walk::amount);
        let kind = match kind? {
            "AllAtOnce" => {
                for key in ["batchSize", "batchDelayMinutes"] {
                    if json.member(key).is_some() {
                        self.below(Step::Key(key.into()), |w| {
                            w.rule::<()>("AllAtOnce has no batches: take it out".into())
                        });
                    }
                }
                RolloutType::AllAtOnce
            }
            _ => {
                let delay = self
                    .optional(json, "batchDelayMinutes", |w, j| w.number(j, 0..=MAX_DELAY_MINUTES))
                    .unwrap_or(0);
                RolloutType::RollingUpdate {
                    batch_size: self.required(json, "batchSize", Walk::amount)?,
                    batch_delay_minutes: delay,
                }
            }
        };
        Some(Rollout { kind, canary, failure_threshold, max_unavailable_per_site })
    }

    pub(crate) fn canary(&mut self, json: &Json<'_>) -> Option<Selector> {
        let before = self.problems.len();
        let selector = self.selector(json)?;
        match selector.is_empty() && self.problems.len() == before {
            true => self.rule("an empty selector makes every node a canary: name some".into()),
            false => Some(selector),
        }
    }

    fn rollback(&mut self, json: &Json<'_>) -> Option<Rollback> {
        self.fields(json, table::ROLLBACK)?;
        Some(Rollback {
            health_check_url: self.optional(json, "healthCheckUrl", Walk::parsed),
            health_check_timeout_seconds: self
                .optional(json, "healthCheckTimeoutSeconds", |w, j| w.number(j, 1..=MAX_TIMEOUT_SECONDS)),
            enabled: self.required(json, "enabled", Walk::truth)?,
        })
    }

    fn transfer(&mut self, json: &Json<'_>) -> Option<Transfer> {
        self.fields(json, table::TRANSFER)?;
        let rate = self.optional(json, "rate", Walk::parsed);
        let scheduled = json.member("windows").or(json.member("timezone")).is_some();
        let schedule = if scheduled { Some(self.schedule(json, "windows")?) } else { None };
        Some(Transfer { schedule, rate })
    }

    fn quarantine(&mut self, json: &Json<'_>) -> Option<BTreeMap<BundleVersion, UnixTime>> {
        self.fields(json, table::QUARANTINE)?;
        let list = self.required(json, "release", |w, j| {
            w.list(j, |w, j| {
                w.fields(j, table::RELEASE)?;
                let version = w.required(j, "version", Walk::parsed::<BundleVersion>);
                let before = w.required(j, "before", Walk::parsed::<UnixTime>);
                Some((version?, before?))
            })
        })?;
        let entries = list.len();
        let released: BTreeMap<_, _> = list.into_iter().collect();
        match released.len() == entries {
            true => Some(released),
            false => self.below(Step::Key("release".into()), |w| {
                w.rule("one version is released twice: keep the later time".into())
            }),
        }
    }

    /// A number of nodes or a share of them.
    pub(crate) fn amount(&mut self, json: &Json<'_>) -> Option<Amount> {
        match json {
            Json::Integer(_) | Json::Large(_) => self.number(json, 1..=MAX_NODES).map(Amount::Nodes),
            Json::String(_) => match self.parsed::<Percent>(json)? {
                Percent(0) => self.rule("0% of the nodes are none: at least 1%".into()),
                share => Some(Amount::Share(share)),
            },
            _ => self.wrong_type("a whole number or a share such as \"5%\"", json),
        }
    }

    // What every value is read with.

    pub(crate) fn parsed<T>(&mut self, json: &Json<'_>) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.text(json)?;
        text.parse().map_err(|e: T::Err| self.rule::<()>(e.to_string())).ok()
    }

    pub(crate) fn text<'j>(&mut self, json: &'j Json<'_>) -> Option<&'j str> {
        match json {
            Json::String(text) => Some(text),
            _ => self.wrong_type("text", json),
        }
    }

    pub(crate) fn one_of(&mut self, json: &Json<'_>, known: &[&'static str]) -> Option<&'static str> {
        let text = self.text(json)?;
        let found = known.iter().find(|word| **word == text);
        if found.is_none() {
            let shown: String = text.chars().take(80).collect();
            let words: Vec<String> = known.iter().map(|word| format!("{word:?}")).collect();
            self.rule::<()>(format!("{shown:?} is not {}", words.join(" or ")));
        }
        found.copied()
    }

    pub(crate) fn truth(&mut self, json: &Json<'_>) -> Option<bool> {
        match json {
            Json::Bool(value) => Some(*value),
            _ => self.wrong_type("true or false", json),
        }
    }

    pub(crate) fn number(&mut self, json: &Json<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        let shown = match json {
            Json::Integer(n) => match u32::try_from(*n).ok().filter(|n| range.contains(n)) {
                Some(n) => return Some(n),
                None => n.to_string(),
            },
            Json::Large(n) => n.to_string(),
            _ => return self.wrong_type("a whole number", json),
        };
        self.rule(format!("{shown} is not from {} to {}", range.start(), range.end()))
    }

    fn list<T>(
        &mut self,
        json: &Json<'_>,
        read: impl FnMut(&mut Self, &Json<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.list_of(json, MAX_ENTRIES, read)
    }

    /// A list of at most `most` entries.
    pub(crate) fn list_of<T>(
        &mut self,
        json: &Json<'_>,
        most: usize,
        mut read: impl FnMut(&mut Self, &Json<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Json::Array(entries) = json else {
            return self.wrong_type("a list", json);
        };
        self.limit(entries.len(), most)?;
        let read = |(n, entry)| self.below(Step::Entry(n), |w| read(w, entry));
        Some(entries.iter().enumerate().filter_map(read).collect())
    }

    fn limit(&mut self, entries: usize, most: usize) -> Option<()> {
        match entries <= most {
            true => Some(()),
            false => self.rule(format!("{entries} entries are too many: at most {most}")),
        }
    }

    pub(crate) fn object<'j, 'a>(&mut self, json: &'j Json<'a>) -> Option<&'j [(Cow<'a, str>, Json<'a>)]> {
        match json {
            Json::Object(members) => Some(members),
            _ => self.wrong_type("a map of keys and values", json),
        }
    }

    /// An object whose keys are all those of a table; says each that is not, and goes on.
    fn fields(&mut self, json: &Json<'_>, known: &'static [Field]) -> Option<()> {
        self.keys(json, || known.iter().map(|field| field.key))
    }

    /// An object whose keys are all among `known`; says each that is not, and goes on.
    pub(crate) fn keys<K>(&mut self, json: &Json<'_>, known: impl Fn() -> K) -> Option<()>
    where
        K: Iterator<Item = &'static str>,
    {
        for (key, _) in self.object(json)? {
            if !known().any(|known| known == key.as_ref()) {
                self.below(Step::Key(key.to_string()), |w| {
                    w.say::<()>(Fault::Unknown { known: known().collect() })
                });
            }
        }
        Some(())
    }

    pub(crate) fn required<T>(
        &mut self,
        json: &Json<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Self, &Json<'_>) -> Option<T>,
    ) -> Option<T> {
        match json.member(key) {
            Some(value) => self.below(Step::Key(key.into()), |w| read(w, value)),
            None => self.say(Fault::Missing(key)),
        }
    }

    /// What is not there and what is wrong are both `None` here: the second has been said, and a walk on which anything
    /// was said gives no policy.
    pub(crate) fn optional<T>(
        &mut self,
        json: &Json<'_>,
        key: &'static str,
        read: impl FnOnce(&mut Self, &Json<'_>) -> Option<T>,
    ) -> Option<T> {
        json.member(key).and_then(|value| self.below(Step::Key(key.into()), |w| read(w, value)))
    }

    fn below<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.at.0.push(step);
        let value = read(self);
        self.at.0.pop();
        value
    }

    fn wrong_type<T>(&mut self, wanted: &'static str, json: &Json<'_>) -> Option<T> {
        let found = match json {
            Json::Null => "nothing",
            Json::Bool(_) => "true or false",
            Json::Integer(_) | Json::Large(_) => "a number",
            Json::String(_) => "text",
            Json::Array(_) => "a list",
            Json::Object(_) => "a map",
        };
        self.say(Fault::Type { wanted, found })
    }

    pub(crate) fn rule<T>(&mut self, rule: String) -> Option<T> {
        self.say(Fault::Rule(rule))
    }

    fn say<T>(&mut self, fault: Fault) -> Option<T> {
        self.problems.push(Problem { at: self.at.clone(), fault });
        None
    }
}
