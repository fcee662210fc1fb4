//! The table of counters: one place to add one.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::Counter;

/// The value of each [`Counter`]. In JSON, an object with a field for each; a missing field is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Counters {
    /// The counter's value.
    pub fn of(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Adds `more` to a counter.
    pub fn add(&mut self, counter: Counter, more: u64) {
        let count = &mut self.0[counter as usize];
        *count = count.saturating_add(more);
    }

    /// The counters that are not zero, in the order of the table.
    pub fn counted(&self) -> impl Iterator<Item = (Counter, u64)> {
        Counter::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    pub(super) fn merge(&mut self, other: &Self) {
        other.counted().for_each(|(counter, more)| self.add(counter, more));
    }
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(Counter::ALL.into_iter().zip(self.0).map(|(counter, count)| (counter.name(), count)))
    }
}

impl<'de> Deserialize<'de> for Counters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(ByName)
    }
}

struct ByName;

impl<'de> Visitor<'de> for ByName {
    type Value = Counters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of counters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counters, A::Error> {
        let mut counters = Counters::default();
        while let Some(name) = map.next_key::<String>()? {
            match Counter::ALL.into_iter().find(|counter| counter.name() == name) {
                Some(counter) => counters.add(counter, map.next_value()?),
                // Another field beside the flattened counters, or a counter of another version.
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(counters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_place_a_name_and_a_meaning() {
        for (place, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place, "ALL is in the order of the declaration");
            assert!(counter.meaning().ends_with('.'));
        }
        let names: std::collections::BTreeSet<_> = Counter::ALL.map(Counter::name).into();
        assert_eq!(names.len(), Counter::ALL.len());
    }

    #[test]
    fn json_has_each_by_its_name_and_a_missing_one_is_zero() {
        let mut counters = Counters::default();
        Counter::ALL.into_iter().zip(3..).for_each(|(counter, count)| counters.add(counter, count));
        let json = serde_json::to_value(counters).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Counter::ALL.len());
        assert_eq!(serde_json::from_value::<Counters>(json).unwrap(), counters);
        let old: Counters = serde_json::from_str(r#"{"settled":2,"and":{"what":["else"]}}"#).unwrap();
        assert_eq!(old.counted().collect::<Vec<_>>(), [(Counter::Settled, 2)]);
    }
}
