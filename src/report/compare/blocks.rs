//! Runs cut into blocks of equal length: the parts that are swapped to see what chance does.

use crate::event::Operation;
use crate::metrics::{Metrics, OperationCounts};
use crate::results::ResultsError;

use super::super::seconds::{Placement, Second};

/// What was measured in a block.
pub(super) struct Block {
    pub(super) seconds: f64,
    pub(super) operations: [OperationBlock; Operation::ALL.len()],
}

/// What was measured of one operation.
#[derive(Debug, Clone, Default)]
pub(super) struct OperationBlock {
    pub(super) counts: OperationCounts,
    /// Response times in microseconds, each with its count, ascending.
    pub(super) response: Vec<(u64, u64)>,
    pub(super) service: Vec<(u64, u64)>,
}

/// The runs in `count` blocks. A last part of a second is left out: it is shorter than any other.
pub(super) fn cut(placement: &Placement, count: usize) -> Result<Vec<Block>, ResultsError> {
    let whole = whole_seconds(placement).max(1);
    let mut measured: Vec<Metrics> = vec![Metrics::default(); count];
    let mut seconds = placement.read()?;
    while let Some(Second { second, intervals, .. }) = seconds.next()? {
        if second < whole {
            let block = &mut measured[(second * count as u64 / whole) as usize];
            intervals.iter().for_each(|interval| block.merge(&interval.metrics));
        }
    }
    let seconds = whole as f64 / count as f64;
    Ok(measured
        .iter()
        .map(|metrics| Block { seconds, operations: Operation::ALL.map(|one| of(metrics, one)) })
        .collect())
}

/// How many whole seconds the runs have.
pub(super) fn whole_seconds(placement: &Placement) -> u64 {
    (placement.elapsed_s as u64).min(placement.seconds())
}

fn of(metrics: &Metrics, operation: Operation) -> OperationBlock {
    let metrics = metrics.operation(operation);
    OperationBlock {
        counts: metrics.counts,
        response: metrics.response.recorded().collect(),
        service: metrics.service.recorded().collect(),
    }
}
