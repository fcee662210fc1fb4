//! What a ledger is bound to, and whether a run may take it up.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::Ledger;
use super::error::{LedgerError, Problem};
use crate::shard::Shard;

/// What a ledger is bound to: a run with anything else is refused, once a certificate or a key of it is in the ledger. Until
/// then it is bound to nothing but its lot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// The provisioning template's name.
    pub template: String,
    /// The AWS region.
    pub region: String,
    /// Which account, in whatever words the caller tells accounts apart: an [`Account`](super::Account), as the command writes it.
    pub account: String,
    /// What decides the content of an identity beside its row. `None` where the caller does not say: then it is neither
    /// compared nor changed.
    pub content: Option<Content>,
    /// Which of the lot's rows it has; `None` if it has them all.
    pub shard: Option<Shard>,
}

/// What decides the content of an identity beside its row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Content {
    /// The parameters that do not come from a column, as they were given.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Who makes the keys: stable and lower case.
    pub key_source: String,
    /// What kind of keys; `None` where whoever makes them decides.
    #[serde(default)]
    pub key_type: Option<String>,
    /// Whom keys are sealed to; empty where they are kept in plain text.
    #[serde(default)]
    pub recipients: BTreeSet<String>,
    /// Whatever else decides what is sent for a row, by name.
    #[serde(default)]
    pub others: BTreeMap<String, String>,
}

impl Content {
    /// What of it differs from `other`. Values are not among the words, for they may be secrets.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let named = |what: &str, ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>| {
            let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            let differ = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
            differ.map(|name| format!("{what}{name}")).collect::<Vec<_>>()
        };
        let mut found = named("parameter ", &self.parameters, &other.parameters);
        for (what, differs) in [
            ("who makes the keys", self.key_source != other.key_source),
            ("the kind of keys", self.key_type != other.key_type),
            ("whom keys are sealed to", self.recipients != other.recipients),
        ] {
            found.extend(differs.then(|| what.to_owned()));
        }
        found.extend(named("", &self.others, &other.others));
        found
    }
}

/// What a ledger has of its lot, in words.
pub(super) fn said(shard: Option<Shard>) -> String {
    shard.map_or(String::from("the whole lot"), |shard| format!("shard {shard}"))
}

/// Whether a ledger has to be bound anew to what a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    AsWanted,
    Anew,
}

/// Refuses a run that is for something else than the ledger is bound to.
pub(super) fn check(connection: &Connection, recorded: &Binding, wanted: &Binding) -> Result<Bound, Problem> {
    if recorded.shard != wanted.shard {
        let (found, wanted) = (said(recorded.shard), said(wanted.shard));
        return Err(Problem::OtherBinding { what: "shard", found, wanted });
    }
    let parts = [
        ("account", &recorded.account, &wanted.account),
        ("region", &recorded.region, &wanted.region),
        ("template", &recorded.template, &wanted.template),
    ];
    let other = parts.into_iter().find(|(_, recorded, wanted)| recorded != wanted);
    let is_free = holds_nothing(connection)?;
    if let Some((what, recorded, wanted)) = other
        && !is_free
    {
        return Err(Problem::OtherBinding { what, found: recorded.clone(), wanted: wanted.clone() });
    }
    let content = check_content(connection, recorded, wanted, is_free)?;
    Ok(if other.is_some() { Bound::Anew } else { content })
}

fn check_content(
    connection: &Connection,
    recorded: &Binding,
    wanted: &Binding,
    is_free: bool,
) -> Result<Bound, Problem> {
    let Some(wanted) = &wanted.content else { return Ok(Bound::AsWanted) };
    match &recorded.content {
        Some(recorded) if recorded == wanted => Ok(Bound::AsWanted),
        _ if is_free => Ok(Bound::Anew),
        Some(recorded) => Err(Problem::OtherContent { differences: recorded.differences(wanted) }),
        // An older version did not write it down, but whether keys are sealed shows.
        None if wanted.recipients.is_empty() && holds_sealed_keys(connection)? => Err(Problem::Unsealing),
        None => Ok(Bound::Anew),
    }
}

/// Whether nothing was issued and no key was made: then nothing is lost if the ledger turns to something else.
fn holds_nothing(connection: &Connection) -> Result<bool, Problem> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM credential) AND NOT EXISTS (SELECT 1 FROM prepared_key)";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Whether any key in the ledger is sealed, or was.
fn holds_sealed_keys(connection: &Connection) -> Result<bool, Problem> {
    Ok(connection.query_row("SELECT EXISTS (SELECT 1 FROM sealing)", [], |row| row.get(0))?)
}

/// Binds the ledger to what a run is for. Nothing was made for the binding before: what was refused there may not be here.
pub(super) fn bind(
    connection: &Connection,
    recorded: &Binding,
    wanted: &Binding,
    at: &str,
) -> Result<(), Problem> {
    let content = wanted.content.as_ref().or(recorded.content.as_ref());
    let sql = "UPDATE lot SET template = ?1, region = ?2, account = ?3, content = ?4";
    let values = params![wanted.template, wanted.region, wanted.account, content.map(to_json)];
    connection.execute(sql, values)?;
    let place =
        |binding: &Binding| (binding.template.clone(), binding.region.clone(), binding.account.clone());
    if place(recorded) != place(wanted) {
        let sql =
            "UPDATE device SET state = 'pending', failure_stage = NULL, failure_cause = NULL, failure = NULL,
                   updated_at = ?1 WHERE state = 'rejected'";
        connection.execute(sql, [at])?;
    }
    Ok(())
}

pub(super) fn to_json(content: &Content) -> String {
    serde_json::to_string(content).expect("texts are always valid JSON")
}

impl Ledger {
    /// Binds the ledger to other settings of content, for the devices that are still to come: registered ones, and
    /// certificates and keys that are there, stay as they are.
    ///
    /// # Errors
    /// [`Problem::Unsealing`] if keys in it are sealed, and would be no longer; [`Problem::Unsettled`] if parameters change
    /// while devices may be registered with those that were; or if writing fails, as in [`commit`](Self::commit).
    pub fn change_content(&mut self, content: &Content) -> Result<(), LedgerError> {
        let recorded = self.view.lot().binding.content.clone();
        let connection = &self.view.connection;
        let sealed = match &recorded {
            Some(recorded) => !recorded.recipients.is_empty(),
            None => false,
        };
        let sealed = sealed || self.view.named(holds_sealed_keys(connection))?;
        if sealed && content.recipients.is_empty() {
            return self.view.named(Err(Problem::Unsealing));
        }
        if recorded.as_ref().is_some_and(|recorded| recorded.parameters != content.parameters) {
            let counts = self.view.counts()?;
            let devices = counts.issued_may_sent + counts.unknown;
            if devices > 0 {
                return self.view.named(Err(Problem::Unsettled { devices }));
            }
        }
        let text = to_json(content);
        self.write(|transaction| {
            transaction.execute("UPDATE lot SET content = ?1", [text])?;
            Ok(())
        })?;
        self.view.lot.binding.content = Some(content.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_without_values() {
        let content = |parameter: &str, source: &str| Content {
            parameters: [(String::from("Site"), parameter.to_owned())].into(),
            key_source: source.to_owned(),
            ..Content::default()
        };
        let found = content("hunter2", "aws").differences(&content("x", "local"));
        assert_eq!(found, ["parameter Site", "who makes the keys"]);
        assert!(content("x", "aws").differences(&content("x", "aws")).is_empty());
    }
}
