//! When credentials are good, when to renew them, and what to report if there are none: values and `now` in, advice
//! out.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Loaded;
use crate::sigv4::{Credentials, NoCredentials};

/// The shortest time between a load and the next, however many callers there are.
pub(super) const LOAD_EVERY: Duration = Duration::from_secs(1);

/// The state of the credentials.
#[derive(Debug, Default)]
pub(super) struct State {
    held: Option<Held>,
    /// When and why the last load failed; `None` if it did not.
    failed: Option<(SystemTime, NoCredentials)>,
    /// Whether a load has begun and not been noted.
    is_loading: bool,
}

#[derive(Debug)]
struct Held {
    loaded: Loaded,
    since: SystemTime,
    /// When to load newer credentials; `None` if they do not expire.
    due: Option<SystemTime>,
    /// Whether the service has refused the credentials.
    is_refused: bool,
}

/// What to do for a caller that wants credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// The credentials are good.
    Give(Credentials),
    /// The credentials are good, and it is time to load newer ones.
    GiveAndLoad(Credentials),
    /// There are no credentials, or the service refuses them.
    Load,
    /// There are no credentials, and a load failed a moment ago.
    Refuse(NoCredentials),
}

impl State {
    /// What to do for a caller that wants credentials at `now`.
    pub(super) fn advice(&self, now: SystemTime) -> Advice {
        let has_just_failed = self.failed.as_ref().is_some_and(|(at, _)| now < *at + LOAD_EVERY);
        match &self.held {
            Some(held) if !held.is_expired(now) => {
                let credentials = || held.loaded.credentials.clone();
                if held.is_refused && !has_just_failed {
                    Advice::Load
                } else if held.due.is_some_and(|due| due <= now) {
                    Advice::GiveAndLoad(credentials())
                } else {
                    Advice::Give(credentials())
                }
            }
            _ if has_just_failed => Advice::Refuse(self.lack()),
            _ => Advice::Load,
        }
    }

    /// Whether to start a load: only if none is under way. Marks it as begun.
    pub(super) fn begin_load(&mut self) -> bool {
        !std::mem::replace(&mut self.is_loading, true)
    }

    /// The credentials after waiting for a load.
    pub(super) fn after_load(&self, now: SystemTime) -> Result<Credentials, NoCredentials> {
        match &self.held {
            // A failed load takes nothing away; the service may have refused the credentials for another reason.
            Some(held) if !held.is_expired(now) => Ok(held.loaded.credentials.clone()),
            _ => Err(self.lack()),
        }
    }

    /// Notes a load that ended at `now`.
    pub(super) fn note(&mut self, loaded: Result<Loaded, NoCredentials>, now: SystemTime) {
        self.is_loading = false;
        let failed = match loaded {
            Ok(Loaded { expires: Some(expires), .. }) if expires <= now => NoCredentials::because(format!(
                "those that were found have expired at {}",
                print_time(expires)
            )),
            Ok(loaded) => {
                let due = due(loaded.expires, now);
                self.held = Some(Held { loaded, since: now, due, is_refused: false });
                self.failed = None;
                return;
            }
            Err(why) => why,
        };
        if let Some(held) = &mut self.held {
            held.due = due(held.loaded.expires, now);
        }
        self.failed = Some((now, failed));
    }

    /// Notes that the service refused `credentials`. If they were just loaded, they are not loaded again.
    pub(super) fn note_refusal(&mut self, credentials: &Credentials, now: SystemTime) {
        if let Some(held) = &mut self.held {
            let is_young = now < held.since + LOAD_EVERY;
            held.is_refused |= held.loaded.credentials == *credentials && !is_young;
        }
    }

    /// When the present credentials expire; `None` if there are none or they do not.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        self.held.as_ref().and_then(|held| held.loaded.expires)
    }

    /// Why there are no credentials.
    fn lack(&self) -> NoCredentials {
        let why = self.failed.as_ref().map(|(_, why)| why.clone());
        let why = why.unwrap_or_else(|| NoCredentials::because("they are still being looked for"));
        match self.expires() {
            Some(expires) => {
                let expired = print_time(expires);
                NoCredentials::because(format!(
                    "the last ones expired at {expired} and could not be renewed: {why}"
                ))
            }
            None => why,
        }
    }
}

impl Held {
    fn is_expired(&self, now: SystemTime) -> bool {
        self.loaded.expires.is_some_and(|expires| expires <= now)
    }
}

/// When to renew: after three quarters of the remaining time. An hour's credentials then have a quarter of an hour to
/// be renewed, ten seconds' have two and a half seconds. A source that returns the same credentials until shortly
/// before they expire is not asked all the time. `None` if they do not expire.
fn due(expires: Option<SystemTime>, now: SystemTime) -> Option<SystemTime> {
    let left = expires?.duration_since(now).unwrap_or_default();
    Some(now + (left / 4 * 3).max(LOAD_EVERY))
}

fn print_time(instant: SystemTime) -> String {
    let whole_seconds = OffsetDateTime::from(instant).replace_nanosecond(0);
    whole_seconds.ok().and_then(|instant| instant.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Secret;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second)
    }

    fn credentials(name: &str) -> Credentials {
        let secret = || Secret::new(format!("{name}-secret"));
        Credentials { access_key_id: name.into(), secret_access_key: secret(), session_token: Some(secret()) }
    }

    fn loaded(name: &str, expires: u64) -> Result<Loaded, NoCredentials> {
        Ok(Loaded { credentials: credentials(name), expires: Some(at(expires)) })
    }

    fn state(loads: impl IntoIterator<Item = (u64, Result<Loaded, NoCredentials>)>) -> State {
        let mut state = State::default();
        for (second, load) in loads {
            state.note(load, at(second));
        }
        state
    }

    #[test]
    fn an_hours_credentials_are_renewed_in_their_last_quarter() {
        let state = state([(0, loaded("a", 3600))]);
        let (a, give) = (credentials("a"), Advice::Give(credentials("a")));
        assert_eq!(State::default().advice(at(0)), Advice::Load);
        assert_eq!((state.advice(at(0)), state.advice(at(2699))), (give, Advice::Give(a.clone())));
        assert_eq!(state.advice(at(2700)), Advice::GiveAndLoad(a.clone()));
        assert_eq!(state.advice(at(3599)), Advice::GiveAndLoad(a));
        assert_eq!(state.advice(at(3600)), Advice::Load);
        assert_eq!(state.expires(), Some(at(3600)));
    }

    #[test]
    fn a_load_that_fails_takes_nothing_away_and_is_tried_again_ever_sooner() {
        let mut state = state([(0, loaded("a", 3600)), (2700, Err(NoCredentials::because("down")))]);
        let a = || credentials("a");
        assert_eq!(state.advice(at(2701)), Advice::Give(a()));
        assert_eq!(state.advice(at(2700 + 675)), Advice::GiveAndLoad(a()));
        state.note(Err(NoCredentials::because("still down")), at(3599));
        assert_eq!(state.after_load(at(3599)), Ok(a()));
        assert_eq!(state.advice(at(3600)), Advice::Load);
        state.note(Err(NoCredentials::because("still down")), at(3600));
        // Expired, and just tried: everyone is told at once.
        let Advice::Refuse(why) = state.advice(at(3600)) else { panic!("nothing is given") };
        assert_eq!(
            why.to_string(),
            "the last ones expired at 2027-01-15T09:00:00Z and could not be renewed: still down"
        );
        assert_eq!(state.after_load(at(3600)), Err(why));
        assert_eq!(state.advice(at(3601)), Advice::Load);
        state.note(loaded("b", 9000), at(3601));
        assert_eq!(state.advice(at(3602)), Advice::Give(credentials("b")));
    }

    #[test]
    fn the_same_credentials_again_are_not_asked_for_without_end() {
        let mut state = State::default();
        let mut now = 0;
        let mut loads = 0;
        while now < 3600 {
            if state.advice(at(now)) != Advice::Give(credentials("a")) {
                state.note(loaded("a", 3600), at(now));
                loads += 1;
            }
            now += 1;
        }
        assert!((3..=12).contains(&loads), "{loads} loads in an hour");
    }

    #[test]
    fn what_the_service_refused_is_loaded_again_unless_it_is_new() {
        let forever = |name| Ok(Loaded { credentials: credentials(name), expires: None });
        let mut state = state([(0, forever("a"))]);
        assert_eq!(state.advice(at(1_000_000)), Advice::Give(credentials("a")), "they do not age");
        state.note_refusal(&credentials("a"), at(0));
        state.note_refusal(&credentials("other"), at(10));
        assert_eq!(state.advice(at(10)), Advice::Give(credentials("a")));
        state.note_refusal(&credentials("a"), at(10));
        assert_eq!(state.advice(at(10)), Advice::Load);
        state.note(Err(NoCredentials::because("down")), at(10));
        assert_eq!(state.advice(at(10)), Advice::Give(credentials("a")), "there is nothing better");
        assert_eq!(state.advice(at(11)), Advice::Load);
        state.note(forever("b"), at(11));
        assert_eq!(state.advice(at(11)), Advice::Give(credentials("b")));
    }

    #[test]
    fn credentials_that_come_expired_are_none() {
        let state = state([(10, loaded("a", 10))]);
        let Advice::Refuse(why) = state.advice(at(10)) else { panic!("nothing is given") };
        assert_eq!(why.to_string(), "those that were found have expired at 2027-01-15T08:00:10Z");
    }
}
