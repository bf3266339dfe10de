//! Which nodes a policy is for: label selectors as Kubernetes has them ("Labels and Selectors"; LabelSelector of
//! meta/v1), and whether two of them can both match one node.

use std::collections::{BTreeMap, BTreeSet};

use super::name::{LabelKey, LabelValue};

/// A set of nodes by their labels. All of it must hold; an empty selector matches every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `matchLabels`: each of these labels, with this value.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// `matchExpressions`; sorted.
    pub expressions: Vec<Expression>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expression {
    /// The label.
    pub key: LabelKey,
    /// What must be so of it.
    pub operator: Operator,
}

/// What must be so of a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// The node has it, with one of these values.
    In(BTreeSet<LabelValue>),
    /// The node has it with another value, or does not have it.
    NotIn(BTreeSet<LabelValue>),
    /// The node has it.
    Exists,
    /// The node does not have it.
    DoesNotExist,
}

impl Operator {
    /// As it is written.
    pub fn as_str(&self) -> &'static str {
        match self {
            Operator::In(_) => "In",
            Operator::NotIn(_) => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let among =
            |values: &BTreeSet<LabelValue>| value.is_some_and(|v| values.iter().any(|w| w.as_str() == v));
        match self {
            Operator::In(values) => among(values),
            Operator::NotIn(values) => !among(values),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl Selector {
    /// Whether a node with these labels is one of the set.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = |key: &LabelKey| labels.get(key.as_str()).map(String::as_str);
        self.labels.iter().all(|(key, wanted)| value(key) == Some(wanted.as_str()))
            && self.expressions.iter().all(|e| e.operator.holds(value(&e.key)))
    }

    /// Whether it says nothing, so that every node matches.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.expressions.is_empty()
    }

    /// Labels that both selectors match, if there are any: those of one node for which both would count. With itself: of
    /// one node that it matches at all.
    ///
    /// Exact: each label is a question of its own, so there is such a node unless some label has no answer.
    pub fn overlap(&self, other: &Selector) -> Option<BTreeMap<String, String>> {
        let mut demands: BTreeMap<&LabelKey, Demand<'_>> = BTreeMap::new();
        for selector in [self, other] {
            for (key, value) in &selector.labels {
                demands.entry(key).or_default().be_one_of(&|v| v == value, &mut [value].into_iter());
            }
            for expression in &selector.expressions {
                demands.entry(&expression.key).or_default().add(&expression.operator);
            }
        }
        let mut labels = BTreeMap::new();
        for (key, demand) in demands {
            if let Some(value) = demand.answer()? {
                labels.insert(key.to_string(), value);
            }
        }
        Some(labels)
    }
}

/// All that is asked of one label.
#[derive(Default)]
struct Demand<'s> {
    /// Where some are listed: the values that are in every list.
    among: Option<BTreeSet<&'s LabelValue>>,
    /// Values that it must not have.
    not: BTreeSet<&'s LabelValue>,
    exists: bool,
    absent: bool,
}

impl<'s> Demand<'s> {
    fn be_one_of(
        &mut self,
        listed: &dyn Fn(&LabelValue) -> bool,
        values: &mut dyn Iterator<Item = &'s LabelValue>,
    ) {
        match &mut self.among {
            Some(among) => among.retain(|value| listed(value)),
            None => self.among = Some(values.collect()),
        }
    }

    fn add(&mut self, operator: &'s Operator) {
        match operator {
            Operator::In(values) => self.be_one_of(&|v| values.contains(v), &mut values.iter()),
            Operator::NotIn(values) => self.not.extend(values),
            Operator::Exists => self.exists = true,
            Operator::DoesNotExist => self.absent = true,
        }
    }

    /// A value for the label, or inside that none: leave it out. None: it cannot be done.
    fn answer(&self) -> Option<Option<String>> {
        let fits = |value: &&&LabelValue| !self.not.contains(**value);
        match (&self.among, self.exists, self.absent) {
            (None, false, _) => Some(None),
            (_, _, true) => None,
            (Some(among), ..) => among.iter().find(fits).map(|value| Some(value.to_string())),
            // There are more words than can be excluded.
            (None, true, false) => {
                let mut words = (0u32..).map(|n| format!("value-{n}"));
                Some(words.find(|word| !self.not.iter().any(|v| v.as_str() == word)))
            }
        }
    }
}
