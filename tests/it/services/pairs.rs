//! Few cells in which every pair of values of two different factors comes up.
//!
//! Owns the choice: the cell with most pairs that are still missing, again and again.

use std::collections::BTreeSet;

use super::cell::Cell;

/// Factor and value, twice.
type Pair = ((usize, usize), (usize, usize));

pub fn covering(cells: &[Cell]) -> Vec<Cell> {
    let mut missing: BTreeSet<Pair> = cells.iter().flat_map(of).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let news = |cell: &Cell| of(cell).filter(|pair| missing.contains(pair)).count();
        // The cheapest of the best.
        let best = cells.iter().max_by_key(|cell| (news(cell), std::cmp::Reverse(cell.cost()))).unwrap();
        for pair in of(best) {
            missing.remove(&pair);
        }
        chosen.push(*best);
    }
    chosen
}

fn of(cell: &Cell) -> impl Iterator<Item = Pair> {
    let values: Vec<_> = cell.values().into_iter().enumerate().collect();
    let pairs: Vec<_> = values
        .iter()
        .enumerate()
        .flat_map(|(n, one)| values[n + 1..].iter().map(|other| (*one, *other)))
        .collect();
    pairs.into_iter()
}

#[test]
fn every_pair_is_there_in_few_cells() {
    let all: Vec<_> = Cell::all().collect();
    let chosen = covering(&all);
    let pairs = |cells: &[Cell]| cells.iter().flat_map(of).collect::<BTreeSet<_>>();
    assert_eq!(pairs(&chosen), pairs(&all));
    assert!(chosen.len() * 10 < all.len(), "{} of {}", chosen.len(), all.len());
}
