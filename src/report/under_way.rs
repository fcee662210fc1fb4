//! What runs that are under way at the same time have together.

/// A run on the timeline, in seconds, and its rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) begins_s: f64,
    pub(super) ends_s: f64,
    /// `None` if it has none.
    pub(super) per_s: Option<f64>,
}

impl Span {
    fn is_at(&self, second: f64) -> bool {
        self.begins_s == second || (self.begins_s < second && second < self.ends_s)
    }
}

/// The highest sum at any time; `None` if there are no runs, or one of them has no rate.
pub(super) fn most(runs: &[Span]) -> Option<f64> {
    most_between(runs, f64::NEG_INFINITY, f64::INFINITY)
}

/// The highest sum at any time between two instants; `None` if there are no runs then, or one of them has no rate.
pub(super) fn most_between(runs: &[Span], from_s: f64, to_s: f64) -> Option<f64> {
    let runs = runs.iter().map(|run| Span { ends_s: end(run, runs), ..*run });
    let runs: Vec<Span> = runs.filter(|run| run.begins_s < to_s && run.ends_s > from_s).collect();
    // The sum only rises where a run begins.
    let instants = runs.iter().map(|run| run.begins_s.max(from_s));
    let sums = instants.map(|at| runs.iter().filter(|run| run.is_at(at)).map(|run| run.per_s).sum());
    sums.collect::<Option<Vec<f64>>>()?.into_iter().max_by(f64::total_cmp)
}

/// The end of a run. Runs are placed to the second: one that ends within another's first second was before it.
fn end(run: &Span, runs: &[Span]) -> f64 {
    let begins = runs.iter().map(|other| other.begins_s);
    let next = begins.filter(|begins_s| *begins_s > run.begins_s && run.ends_s - *begins_s < 1.0);
    next.fold(run.ends_s, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_at_the_same_time_are_added_up() {
        let run = |begins_s, ends_s, per_s| Span { begins_s, ends_s, per_s };
        let one_after_the_other = [run(0.0, 10.3, Some(10.0)), run(10.0, 20.0, Some(12.0))];
        assert_eq!(most(&one_after_the_other), Some(12.0));
        let both = [run(0.0, 10.0, Some(10.0)), run(5.0, 15.0, Some(12.0)), run(15.0, 20.0, Some(8.0))];
        assert_eq!(most(&both), Some(22.0));
        assert_eq!(most_between(&both, 10.0, 15.0), Some(12.0));
        assert_eq!(most_between(&both, 4.0, 6.0), Some(22.0));
        assert_eq!(most_between(&both, 20.0, 21.0), None);
        // A part of the timeline that has seconds of two runs has the higher rate, not both.
        assert_eq!(most_between(&one_after_the_other, 9.0, 12.0), Some(12.0));
        assert_eq!(most_between(&one_after_the_other, 19.0, 20.0), Some(12.0));
        assert_eq!(most(&[run(0.0, 0.4, Some(3.0))]), Some(3.0));
        assert_eq!(most(&[run(0.0, 9.0, Some(3.0)), run(9.0, 12.0, None)]), None);
        assert_eq!(most(&[]), None);
    }
}
