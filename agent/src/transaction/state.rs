//! The states of an install and the ways between them. Pure: what happened goes in, what is next comes out.
//!
//! "-ing" is recorded before the act and "-ed" after it, so whatever is found after a power cut says what may be half
//! done. Every act can be done again without harm. `docs/development/states.dot` draws this with the same names.

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
    /// The program began anew in this state.
    Restarted {
        /// Whether the machine was booted since.
        rebooted: bool,
    },
}

impl Event {
    /// Every event, for whoever asks what each would do.
    #[cfg(any(test, fuzzing))]
    pub const ALL: [Event; 6] = [
        Event::Begin,
        Event::Done,
        Event::Failed,
        Event::NeedsReboot,
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
    /// Tidy up.
    Commit,
    /// Bring the node back.
    RollBack,
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
        write!(f, "the event {:?} cannot happen in the state {:?}", self.event, self.state)
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
            State::Committing => Step::Commit,
            State::RollingBack { .. } => Step::RollBack,
            State::AwaitingReboot { .. } => Step::Wait,
            State::Finished { .. } => Step::Stop,
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// If the event cannot happen here.
    pub fn next(self, event: Event) -> Result<State, Illegal> {
        let rolled_back = |cause| State::Finished {
            end: if cause == Cause::Install { End::Unchanged } else { End::RolledBack },
        };
        Ok(match (self, event) {
            (State::Staged, Event::Begin) => State::Snapshotting,
            (State::Snapshotting, Event::Done) => State::Snapshotted,
            // Nothing was touched yet.
            (State::Snapshotting, Event::Failed) => State::Finished { end: End::NotStarted },
            (State::Snapshotted, Event::Begin) => State::Installing,
            (State::Installing, Event::Done) => State::Installed,
            (State::Installing, Event::Failed) => State::RollingBack { cause: Cause::Install },
            (State::Installed, Event::Begin) => State::Checking,
            (State::Checking, Event::Done) => State::Committing,
            (State::Checking, Event::Failed) => State::RollingBack { cause: Cause::HealthCheck },
            // What could not be removed is a warning, not a reason to undo a good install.
            (State::Committing, Event::Done | Event::Failed) => State::Finished { end: End::Installed },
            (State::RollingBack { cause }, Event::Done) => rolled_back(cause),
            (State::RollingBack { .. }, Event::Failed) => State::Finished { end: End::NeedsPerson },
            (State::RollingBack { cause }, Event::NeedsReboot) => State::AwaitingReboot { cause },
            (State::AwaitingReboot { cause }, Event::Restarted { rebooted: true }) => rolled_back(cause),
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

    fn reachable(from: State) -> Vec<State> {
        let (mut seen, mut queue) = (vec![from], VecDeque::from([from]));
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
        for state in reachable(State::Staged) {
            for rebooted in [false, true] {
                let restarted = state.next(Event::Restarted { rebooted }).unwrap();
                let ends = reachable(restarted).iter().any(|s| matches!(s, State::Finished { .. }));
                assert!(ends, "{state:?} → {restarted:?} never ends");
            }
            assert_eq!(state.step() == Step::Stop, matches!(state, State::Finished { .. }));
        }
    }

    #[test]
    fn an_illegal_event_is_an_error_and_not_a_panic() {
        assert!(State::Staged.next(Event::Done).is_err());
        assert!(State::Finished { end: End::Installed }.next(Event::Begin).is_err());
    }

    #[test]
    fn every_state_survives_the_journal() {
        for state in reachable(State::Staged) {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }
}
