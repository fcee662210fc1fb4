//! The engine as the command line runs it, before services of every kind, in virtual time: how much of a rate or a quota it
//! uses, and how much is throttled.
//!
//! Every pair of values is tried in every test run; `scripts/soak-rates` tries all cells, and its table stands in
//! docs/PERFORMANCE.md.

mod cell;
mod pairs;
mod play;
mod whole;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cell::Cell;
use play::Score;

#[test]
fn every_pair_of_values() {
    let cells = pairs::covering(&Cell::all().filter(Cell::is_quick).collect::<Vec<_>>());
    judge(&run(&cells));
}

/// All of them, or those whose name has `FLEETMINT_CELLS` in it: takes long, and prints a table.
#[test]
#[ignore = "takes minutes, optimised; scripts/soak-rates runs it"]
fn all_cells() {
    let part = std::env::var("FLEETMINT_CELLS").unwrap_or_default();
    let cells: Vec<_> = Cell::all().filter(|cell| cell.to_string().contains(&part)).collect();
    let scored = run(&cells);
    println!("{}", table(&scored));
    judge(&scored);
}

fn run(cells: &[Cell]) -> Vec<(Cell, Score)> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let (next, scored) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let score = play::play(cell);
                    scored.lock().unwrap().push((*cell, score));
                }
            });
        }
    });
    let mut scored = scored.into_inner().unwrap();
    scored.sort_by_key(|(cell, _)| cell.to_string());
    scored
}

fn judge(scored: &[(Cell, Score)]) {
    let wanting: Vec<_> =
        scored.iter().filter(|(cell, score)| !cell.wants().is_met(score)).copied().collect();
    assert!(wanting.is_empty(), "{} of {} cells:\n{}", wanting.len(), scored.len(), table(&wanting));
}

fn table(scored: &[(Cell, Score)]) -> String {
    let mut text =
        String::from("| service | used | throttled | half a minute after an outage |\n|---|---|---|---|\n");
    for (cell, score) in scored {
        let after = score.after_outage.map_or(String::new(), |after| format!("{after:.2}"));
        let throttled = 100.0 * score.throttled;
        writeln!(text, "| {cell} | {:.3} | {throttled:.1} % | {after} |", score.used).unwrap();
    }
    text
}
