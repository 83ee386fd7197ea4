//! When a backend counts as gone, and when as back: pure counting, told what happened, telling what follows.
//!
//! A session leaves its home only when the home is *down*, and leaving costs the user the session. So
//! evidence is weighed: a refused connection proves that nobody listens, a wrong certificate that it is not the
//! backend that answers; a slow answer or a reset under
//! load proves nothing until a trial of its own has failed.

use std::fmt::{self, Display, Formatter};

use crate::config::{HealthCheck, PassiveHealth};

/// What passing requests and checks have told about one backend.
#[derive(Debug, Default)]
pub struct Health {
    /// Connections in a row that could not be made.
    unreachable: u32,
    /// Exchanges that broke since the last answer.
    broken: u32,
    /// Active checks passed in a row.
    passed: u32,
    /// Active checks failed in a row.
    failed: u32,
}

/// Something that happened to a passing request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// An answer came, whatever its status.
    Answered,
    /// Nobody listens there.
    Refused,
    /// Somebody else, or nobody can tell who, answers there.
    Untrusted,
    /// No connection within the deadline, or no way there.
    Unreachable,
    /// Connected, but closed, reset, or silent until the deadline.
    Broken,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    Unchanged,
    /// A trial should find out, now.
    Suspect,
    /// It is gone.
    Down,
    /// It is back.
    Up,
}

// === impl Evidence ===

impl Display for Evidence {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Refused => "connection refused",
            Self::Untrusted => "certificate not accepted",
            Self::Unreachable => "no connection",
            Self::Broken => "connections broke without an answer",
        })
    }
}

// === impl Health ===

impl Health {
    /// A request that passed through told something.
    pub fn passing(&mut self, evidence: Evidence, config: &PassiveHealth) -> Finding {
        match evidence {
            Evidence::Answered => {
                self.alive();
                Finding::Unchanged
            }
            Evidence::Refused | Evidence::Untrusted => self.down(),
            Evidence::Unreachable => self.unreachable(config),
            Evidence::Broken => {
                // It did connect.
                self.unreachable = 0;
                self.broken += 1;
                if self.broken.is_multiple_of(config.fall.get()) {
                    Finding::Suspect
                } else {
                    Finding::Unchanged
                }
            }
        }
    }

    /// An active check ended.
    pub fn checked(&mut self, ok: bool, up: bool, config: &HealthCheck) -> Finding {
        if ok {
            self.alive();
            self.failed = 0;
            self.passed = self.passed.saturating_add(1);
            if !up && self.passed >= config.rise.get() {
                return Finding::Up;
            }
        } else {
            self.passed = 0;
            self.failed = self.failed.saturating_add(1);
            if up && self.failed >= config.fall.get() {
                return self.down();
            }
        }
        Finding::Unchanged
    }

    /// A trial connection ended, where no active check is configured. One that is not made in time proves
    /// no more than a passing one: an overloaded backend lives.
    pub fn tried(&mut self, failed: Option<Evidence>, up: bool, config: &PassiveHealth) -> Finding {
        match (failed, up) {
            (None, up) => {
                self.alive();
                if up { Finding::Unchanged } else { Finding::Up }
            }
            (Some(_), false) => Finding::Unchanged,
            (Some(Evidence::Refused | Evidence::Untrusted), true) => self.down(),
            (Some(_), true) => match self.unreachable(config) {
                // Not proven, and nothing else may look again soon.
                Finding::Unchanged => Finding::Suspect,
                finding => finding,
            },
        }
    }

    fn unreachable(&mut self, config: &PassiveHealth) -> Finding {
        self.unreachable += 1;
        if self.unreachable >= config.fall.get() { self.down() } else { Finding::Unchanged }
    }

    fn alive(&mut self) {
        self.unreachable = 0;
        self.broken = 0;
    }

    fn down(&mut self) -> Finding {
        self.alive();
        self.passed = 0;
        Finding::Down
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use http::StatusCode;

    use super::*;

    fn passive() -> PassiveHealth {
        PassiveHealth { fall: NonZeroU32::new(3).unwrap(), retry: Duration::from_secs(1) }
    }

    fn check() -> HealthCheck {
        HealthCheck {
            path: "/healthz".into(),
            host: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: NonZeroU32::new(2).unwrap(),
            fall: NonZeroU32::new(3).unwrap(),
            expect: vec![(StatusCode::OK, StatusCode::OK)],
        }
    }

    #[test]
    fn one_refused_connection_is_proof() {
        assert_eq!(Health::default().passing(Evidence::Refused, &passive()), Finding::Down);
    }

    #[test]
    fn one_wrong_certificate_is_proof() {
        assert_eq!(Health::default().passing(Evidence::Untrusted, &passive()), Finding::Down);
        assert_eq!(Health::default().tried(Some(Evidence::Untrusted), true, &passive()), Finding::Down);
    }

    #[test]
    fn broken_answers_only_raise_suspicion() {
        let mut health = Health::default();
        let findings: Vec<_> = (0..6).map(|_| health.passing(Evidence::Broken, &passive())).collect();
        assert_eq!(findings[2], Finding::Suspect);
        assert_eq!(findings[5], Finding::Suspect);
        assert!(!findings.contains(&Finding::Down));
    }

    #[test]
    fn an_answer_in_between_clears_the_count() {
        let mut health = Health::default();
        for _ in 0..10 {
            assert_eq!(health.passing(Evidence::Unreachable, &passive()), Finding::Unchanged);
            assert_eq!(health.passing(Evidence::Unreachable, &passive()), Finding::Unchanged);
            health.passing(Evidence::Answered, &passive());
        }
    }

    #[test]
    fn unreachable_three_times_in_a_row_is_down() {
        let mut health = Health::default();
        health.passing(Evidence::Unreachable, &passive());
        health.passing(Evidence::Unreachable, &passive());
        assert_eq!(health.passing(Evidence::Unreachable, &passive()), Finding::Down);
    }

    #[test]
    fn slow_answers_do_not_count_as_connections_that_fail() {
        let mut health = Health::default();
        for _ in 0..4 {
            health.passing(Evidence::Broken, &passive());
        }
        assert_eq!(health.passing(Evidence::Unreachable, &passive()), Finding::Unchanged);
        assert_eq!(health.passing(Evidence::Broken, &passive()), Finding::Unchanged);
        assert_eq!(health.passing(Evidence::Unreachable, &passive()), Finding::Unchanged);
    }

    #[test]
    fn a_trial_that_times_out_is_repeated_before_it_counts_as_proof() {
        let mut health = Health::default();
        let findings: Vec<_> =
            (0..3).map(|_| health.tried(Some(Evidence::Unreachable), true, &passive())).collect();
        assert_eq!(findings, [Finding::Suspect, Finding::Suspect, Finding::Down]);
        assert_eq!(health.tried(Some(Evidence::Unreachable), false, &passive()), Finding::Unchanged);
        assert_eq!(health.tried(None, false, &passive()), Finding::Up);
    }

    #[test]
    fn a_trial_that_is_refused_is_proof_and_one_that_connects_clears_the_counts() {
        let mut health = Health::default();
        health.passing(Evidence::Unreachable, &passive());
        health.passing(Evidence::Unreachable, &passive());
        assert_eq!(health.tried(None, true, &passive()), Finding::Unchanged);
        assert_eq!(health.passing(Evidence::Unreachable, &passive()), Finding::Unchanged);
        assert_eq!(health.tried(Some(Evidence::Refused), true, &passive()), Finding::Down);
    }

    #[test]
    fn active_checks_need_fall_failures_and_rise_passes() {
        let mut health = Health::default();
        assert_eq!(health.checked(false, true, &check()), Finding::Unchanged);
        assert_eq!(health.checked(false, true, &check()), Finding::Unchanged);
        assert_eq!(health.checked(false, true, &check()), Finding::Down);
        assert_eq!(health.checked(true, false, &check()), Finding::Unchanged);
        assert_eq!(health.checked(false, false, &check()), Finding::Unchanged);
        assert_eq!(health.checked(true, false, &check()), Finding::Unchanged);
        assert_eq!(health.checked(true, false, &check()), Finding::Up);
    }

    #[test]
    fn a_refusal_resets_the_passes_that_readmit() {
        let mut health = Health::default();
        health.checked(true, true, &check());
        health.checked(true, true, &check());
        health.passing(Evidence::Refused, &passive());
        assert_eq!(health.checked(true, false, &check()), Finding::Unchanged);
        assert_eq!(health.checked(true, false, &check()), Finding::Up);
    }
}
