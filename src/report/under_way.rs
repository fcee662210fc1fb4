//! What runs that are under way at the same time have together.

/// A run on the timeline, in seconds, and its rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) begins_s: f64,
    pub(super) ends_s: f64,
    /// `None` if it has none.
    pub(super) per_s: Option<f64>,
}

/// The sum over the runs under way between two instants; `None` if there was none, or one of them has no rate.
pub(super) fn sum(runs: &[Span], from_s: f64, to_s: f64) -> Option<f64> {
    let is_under_way = |run: &&Span| run.begins_s < to_s && run.ends_s > from_s;
    let rates = runs.iter().filter(is_under_way).map(|run| run.per_s).collect::<Option<Vec<f64>>>();
    rates.filter(|rates| !rates.is_empty()).map(|rates| rates.iter().sum())
}

/// The highest sum at any time; `None` if there are no runs, or one of them has no rate.
pub(super) fn most(runs: &[Span]) -> Option<f64> {
    // Runs are placed to the second: one that ends within another's first second was before it.
    let from = |run: &Span| (run.ends_s - run.begins_s).min(1.0) + run.begins_s - 1e-6;
    let sums = runs.iter().map(|run| sum(runs, from(run), run.begins_s + 1e-6));
    sums.collect::<Option<Vec<f64>>>()?.into_iter().max_by(f64::total_cmp)
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
        assert_eq!(sum(&both, 10.0, 15.0), Some(12.0));
        assert_eq!(most(&[run(0.0, 0.4, Some(3.0))]), Some(3.0));
        assert_eq!(most(&[run(0.0, 9.0, Some(3.0)), run(9.0, 12.0, None)]), None);
        assert_eq!(most(&[]), None);
    }
}
