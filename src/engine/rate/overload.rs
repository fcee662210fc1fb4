//! Overloads: instants at which any burst that the service allows was used up.
//!
//! Owns the estimate of the service's limit from what passed between two of them: empty to empty.

use std::collections::VecDeque;

/// Fewer passed requests than this are too few to estimate a limit.
pub(super) const ENOUGH: f64 = 10.0;
/// Fewer seconds than this are too short to estimate a limit.
const LEAST_SPAN: f64 = 3.0;
/// How many overloads are remembered.
const REMEMBERED: usize = 8;

/// Time under load in seconds, and requests that were not throttled, up to an instant.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    pub(super) active: f64,
    pub(super) passed: u64,
}

impl Mark {
    /// The time in seconds and the requests since an earlier mark.
    pub(super) fn since(self, earlier: Self) -> (f64, f64) {
        (self.active - earlier.active, (self.passed - earlier.passed) as f64)
    }
}

/// The latest overloads.
#[derive(Debug, Default)]
pub(super) struct Overloads(VecDeque<Mark>);

impl Overloads {
    pub(super) fn begin(&mut self, here: Mark) {
        self.0.push_back(here);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// Where the last overload began; the start if there was none.
    pub(super) fn last(&self) -> Mark {
        self.0.back().copied().unwrap_or_default()
    }

    /// The requests that passed per second since the last overload that is long enough ago; `None` if there is none.
    pub(super) fn sustained(&self, here: Mark) -> Option<f64> {
        self.0.iter().rev().find_map(|mark| {
            let (span, passed) = here.since(*mark);
            (span >= LEAST_SPAN && passed >= ENOUGH).then(|| (passed + 1.0) / span)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_from_the_youngest_overload_that_is_old_enough() {
        let mut overloads = Overloads::default();
        let at = |active, passed| Mark { active, passed };
        assert_eq!(overloads.sustained(at(100.0, 1_000)), None);
        for mark in [at(0.0, 100), at(10.0, 169), at(12.0, 180)] {
            overloads.begin(mark);
        }
        // Two seconds tell nothing, and four do.
        assert_eq!(overloads.sustained(at(14.0, 193)), Some((193.0 - 169.0 + 1.0) / 4.0));
        assert_eq!(overloads.last().passed, 180);
        (0..20).for_each(|_| overloads.begin(at(14.0, 193)));
        assert_eq!(overloads.sustained(at(15.0, 200)), None);
    }
}
