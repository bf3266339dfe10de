//! The states of an install and the ways between them. Pure: what happened goes in, what is next comes out.
//!
//! "-ing" is recorded before the act and "-ed" after it, so whatever is found after a power cut says what may be half
//! done. Every act can be done again without harm. `docs/development/states.dot` draws this with the same names; a test
//! compares the two.

use std::fmt;

/// Where an install is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", tag = "name")]
pub enum State {
    /// Everything is verified and in a folder of root's.
    Staged,
    /// A restore point may or may not exist.
    Snapshotting,
    /// It exists, or this node has none.
    Snapshotted,
    /// Packages may be half configured.
    Installing,
    /// The package manager has ended and the inventory is the planned one.
    Installed,
    /// The node is being judged.
    Checking,
    /// It is good so far; what was installed takes effect at the next boot.
    Rebooting,
    /// It was booted since, and is judged once more.
    Rechecking,
    /// It is good; what is not needed any more is being removed.
    Committing,
    /// It is being brought back.
    RollingBack {
        /// Why.
        cause: Cause,
    },
    /// It will be back after the next boot.
    AwaitingReboot {
        /// Why.
        cause: Cause,
    },
    /// It should be back, which is being proved.
    Proving {
        /// Why it was brought back.
        cause: Cause,
    },
    /// Nothing is left to do.
    Finished {
        /// How it ended.
        end: End,
    },
}

/// Why a node is brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The install failed.
    Install,
    /// The node was not healthy afterwards.
    HealthCheck,
    /// Somebody on the node has asked for it.
    Operator,
    /// The policy has gone back to an older bundle.
    Policy,
}

/// How an install ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// Patched and healthy.
    Installed,
    /// In its pre-patch state, because of a failed install.
    Unchanged,
    /// In its pre-patch state, because of a failed health check.
    RolledBack,
    /// In its pre-patch state, because somebody wanted it there.
    Returned,
    /// Neither: a person must look.
    NeedsPerson,
    /// It never began.
    NotStarted,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next act may begin.
    Begin,
    /// The act succeeded.
    Done,
    /// The act failed.
    Failed,
    /// The act succeeded, and takes effect at the next boot.
    NeedsReboot,
    /// Somebody wants the node back before what was installed takes effect.
    Asked,
    /// The program began anew in this state.
    Restarted {
        /// Whether the machine was booted since.
        rebooted: bool,
    },
}

impl Event {
    /// Every event, for whoever asks what each would do.
    #[cfg(any(test, fuzzing))]
    pub const ALL: [Event; 7] = [
        Event::Begin,
        Event::Done,
        Event::Failed,
        Event::NeedsReboot,
        Event::Asked,
        Event::Restarted { rebooted: false },
        Event::Restarted { rebooted: true },
    ];
}

/// What a state wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on to the act: `Event::Begin`.
    Begin,
    /// Make a restore point.
    Snapshot,
    /// Let the package manager work.
    Install,
    /// Judge the node.
    Check,
    /// Judge it once more, after the boot.
    Recheck,
    /// Tidy up.
    Commit,
    /// Bring the node back.
    RollBack,
    /// Prove that it is back.
    Prove,
    /// Nothing before the next boot.
    Wait,
    /// Nothing at all.
    Stop,
}

/// An event that cannot happen in a state: a fault in this program or a journal of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    state: State,
    event: Event,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the event {:?} cannot happen in the state {}", self.event, self.state)
    }
}

impl fmt::Display for State {
    /// As the drawing names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::RollingBack { cause } => write!(f, "RollingBack({cause:?})"),
            State::AwaitingReboot { cause } => write!(f, "AwaitingReboot({cause:?})"),
            State::Proving { cause } => write!(f, "Proving({cause:?})"),
            State::Finished { end } => write!(f, "Finished({end:?})"),
            plain => write!(f, "{plain:?}"),
        }
    }
}

impl State {
    /// What this state wants.
    pub fn step(self) -> Step {
        match self {
            State::Staged | State::Snapshotted | State::Installed => Step::Begin,
            State::Snapshotting => Step::Snapshot,
            State::Installing => Step::Install,
            State::Checking => Step::Check,
            State::Rechecking => Step::Recheck,
            State::Committing => Step::Commit,
            State::RollingBack { .. } => Step::RollBack,
            State::Proving { .. } => Step::Prove,
            State::Rebooting | State::AwaitingReboot { .. } => Step::Wait,
            State::Finished { .. } => Step::Stop,
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// If the event cannot happen here.
    pub fn next(self, event: Event) -> Result<State, Illegal> {
        Ok(match (self, event) {
            (State::Staged, Event::Begin) => State::Snapshotting,
            (State::Snapshotting, Event::Done) => State::Snapshotted,
            // Nothing was touched yet.
            (State::Snapshotting, Event::Failed) => State::Finished { end: End::NotStarted },
            (State::Snapshotted, Event::Begin) => State::Installing,
            (State::Installing, Event::Done) => State::Installed,
            (State::Installing, Event::Failed) => State::RollingBack { cause: Cause::Install },
            (State::Installed, Event::Begin) => State::Checking,
            (State::Checking | State::Rechecking, Event::Done) => State::Committing,
            (State::Checking | State::Rechecking, Event::Failed) => {
                State::RollingBack { cause: Cause::HealthCheck }
            }
            (State::Checking, Event::NeedsReboot) => State::Rebooting,
            (State::Rebooting, Event::Restarted { rebooted: true }) => State::Rechecking,
            (State::Rebooting, Event::Asked) => State::RollingBack { cause: Cause::Operator },
            // What could not be removed is a warning, not a reason to undo a good install.
            (State::Committing, Event::Done | Event::Failed) => State::Finished { end: End::Installed },
            (State::RollingBack { cause }, Event::Done) => State::Proving { cause },
            (State::RollingBack { cause }, Event::NeedsReboot) => State::AwaitingReboot { cause },
            (State::AwaitingReboot { cause }, Event::Restarted { rebooted: true }) => {
                State::Proving { cause }
            }
            (State::Proving { cause }, Event::Done) => State::Finished {
                end: match cause {
                    Cause::Install => End::Unchanged,
                    Cause::HealthCheck => End::RolledBack,
                    Cause::Operator | Cause::Policy => End::Returned,
                },
            },
            // Once, and not again: a way back that has failed is never tried in a circle.
            (State::RollingBack { .. } | State::Proving { .. }, Event::Failed) => {
                State::Finished { end: End::NeedsPerson }
            }
            // Everywhere else a restart does the recorded act again. In Installing that means: repair, and go on; going
            // forward needs no restore point, and every byte it needs is here.
            (state, Event::Restarted { .. }) => state,
            (state, event) => return Err(Illegal { state, event }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::fmt::Write as _;

    /// Where a transaction begins: an install, and a rollback by hand or by a policy.
    const BEGINNINGS: [State; 3] = [
        State::Staged,
        State::RollingBack { cause: Cause::Operator },
        State::RollingBack { cause: Cause::Policy },
    ];

    fn reachable(from: &[State]) -> Vec<State> {
        let (mut seen, mut queue) = (from.to_vec(), VecDeque::from(from.to_vec()));
        while let Some(state) = queue.pop_front() {
            for next in Event::ALL.iter().filter_map(|e| state.next(*e).ok()) {
                if !seen.contains(&next) {
                    seen.push(next);
                    queue.push_back(next);
                }
            }
        }
        seen
    }

    #[test]
    fn from_every_reachable_state_a_restart_goes_on_or_back_and_the_end_is_reachable() {
        for state in reachable(&BEGINNINGS) {
            for rebooted in [false, true] {
                let restarted = state.next(Event::Restarted { rebooted }).unwrap();
                let ends = reachable(&[restarted]).iter().any(|s| matches!(s, State::Finished { .. }));
                assert!(ends, "{state} → {restarted} never ends");
            }
            assert_eq!(state.step() == Step::Stop, matches!(state, State::Finished { .. }));
            // After a boot nothing waits for one any more.
            let booted = state.next(Event::Restarted { rebooted: true }).unwrap();
            assert_ne!(booted.step(), Step::Wait, "{state}");
        }
    }

    #[test]
    fn no_way_leads_from_going_back_to_going_on() {
        for from in BEGINNINGS.into_iter().skip(1) {
            for state in reachable(&[from]) {
                let is_back = matches!(
                    state,
                    State::RollingBack { .. }
                        | State::AwaitingReboot { .. }
                        | State::Proving { .. }
                        | State::Finished { end: End::Returned | End::NeedsPerson }
                );
                assert!(is_back, "{from} → {state}");
            }
        }
    }

    #[test]
    fn an_illegal_event_is_an_error_and_not_a_panic() {
        assert!(State::Staged.next(Event::Done).is_err());
        assert!(State::Finished { end: End::Installed }.next(Event::Begin).is_err());
    }

    #[test]
    fn every_state_survives_the_journal() {
        for state in reachable(&BEGINNINGS) {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }

    /// The drawing of what [`State::next`] does.
    fn drawing() -> String {
        let mut out = String::from(
            "// The states of an install: agent/src/transaction/state.rs, with the same names, which a test compares.\n\
             // Events that lead back to where they happen are not drawn.\n\
             // PRESTAGE_DRAW=1 cargo test -p prestage drawing; dot -Tsvg docs/development/states.dot > states.svg\n\
             digraph install {\n    rankdir = LR\n    node [shape = box, style = rounded, fontname = \"sans-serif\"]\n    \
             edge [fontname = \"sans-serif\", fontsize = 10]\n",
        );
        for state in reachable(&BEGINNINGS) {
            let mut ways: Vec<(State, Vec<String>)> = Vec::new();
            for event in Event::ALL {
                let Some(next) = state.next(event).ok().filter(|next| *next != state) else { continue };
                let name = match event {
                    Event::Restarted { .. } => "Restarted, rebooted".to_owned(),
                    plain => format!("{plain:?}"),
                };
                match ways.iter_mut().find(|(to, _)| *to == next) {
                    Some((_, names)) => names.push(name),
                    None => ways.push((next, vec![name])),
                }
            }
            for (next, names) in ways {
                writeln!(out, "    \"{state}\" -> \"{next}\" [label = \"{}\"]", names.join(", ")).unwrap();
            }
        }
        out.push_str("}\n");
        out
    }

    #[test]
    fn the_drawing_shows_these_states_and_ways() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/development/states.dot");
        if std::env::var_os("PRESTAGE_DRAW").is_some() {
            std::fs::write(path, drawing()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), drawing(), "run it again with PRESTAGE_DRAW=1");
    }
}
