//! What a ledger is bound to, and whether a run may use it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::Ledger;
use super::account::Account;
use super::error::{LedgerError, Problem};
use super::refusal::BoundTo;
use crate::shard::Shard;

/// What a ledger is bound to. Once it has a certificate or a key, a run with any other binding is refused; before that,
/// it is bound only to its lot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// The provisioning template's name.
    pub template: String,
    /// The AWS region.
    pub region: String,
    /// The account.
    pub account: Account,
    /// What decides the content of an identity besides its row. `None` if the caller does not say: it is then neither
    /// compared nor changed.
    pub content: Option<Content>,
    /// Which of the lot's rows the ledger has; `None` if it has all.
    pub shard: Option<Shard>,
}

/// What decides the content of an identity besides its row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Content {
    /// The parameters that do not come from a column, as they were given.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The stable, lower-case name of the maker of the keys.
    pub key_source: String,
    /// The type of the keys; `None` if their maker decides.
    #[serde(default)]
    pub key_type: Option<String>,
    /// The recipients that keys are sealed to; empty if keys are kept in plain text.
    #[serde(default)]
    pub recipients: BTreeSet<String>,
    /// Any other settings that decide what is sent for a row, by name.
    #[serde(default)]
    pub others: BTreeMap<String, String>,
}

impl Content {
    /// Names the settings that differ from `other`, without their values, which may be secrets.
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

/// The part of its lot that a ledger has, in words.
pub(super) fn said(shard: Option<Shard>) -> String {
    shard.map_or(String::from("the whole lot"), |shard| format!("shard {shard}"))
}

/// Whether a ledger has to be bound again to what a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    AsWanted,
    Anew,
}

/// Refuses a run whose binding conflicts with the ledger's.
pub(super) fn check(connection: &Connection, recorded: &Binding, wanted: &Binding) -> Result<Bound, Problem> {
    if recorded.shard != wanted.shard {
        let (found, wanted) = (said(recorded.shard), said(wanted.shard));
        return Err(Problem::OtherBinding { what: BoundTo::Shard, found, wanted });
    }
    let account = |binding: &Binding| binding.account.to_string();
    let parts = [
        (BoundTo::Account, account(recorded), account(wanted)),
        (BoundTo::Region, recorded.region.clone(), wanted.region.clone()),
        (BoundTo::Template, recorded.template.clone(), wanted.template.clone()),
    ];
    let other = parts.into_iter().find(|(_, recorded, wanted)| recorded != wanted);
    let is_free = holds_nothing(connection)?;
    let is_other = other.is_some();
    if let Some((what, found, wanted)) = other
        && !is_free
    {
        return Err(Problem::OtherBinding { what, found, wanted });
    }
    let content = check_content(connection, recorded, wanted, is_free)?;
    Ok(if is_other { Bound::Anew } else { content })
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
        // An older version did not record it, but sealed keys in the ledger give it away.
        None if wanted.recipients.is_empty() && holds_sealed_keys(connection)? => Err(Problem::Unsealing),
        None => Ok(Bound::Anew),
    }
}

/// Whether nothing was issued and no key was made, so that the ledger can be bound to something else without loss.
fn holds_nothing(connection: &Connection) -> Result<bool, Problem> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM credential) AND NOT EXISTS (SELECT 1 FROM prepared_key)";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Whether any key in the ledger is or was sealed.
fn holds_sealed_keys(connection: &Connection) -> Result<bool, Problem> {
    Ok(connection.query_row("SELECT EXISTS (SELECT 1 FROM sealing)", [], |row| row.get(0))?)
}

/// Binds the ledger to what a run is for. Only after [`check`], which refuses ledgers with something to lose.
pub(super) fn bind(
    connection: &Connection,
    recorded: &Binding,
    wanted: &Binding,
    at: &str,
) -> Result<(), Problem> {
    let content = wanted.content.as_ref().or(recorded.content.as_ref());
    let sql = "UPDATE lot SET template = ?1, region = ?2, account = ?3, content = ?4";
    let values = params![wanted.template, wanted.region, wanted.account.to_string(), content.map(to_json)];
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
    /// Binds the ledger to other content settings, for devices that are still to come. Registered devices, and existing
    /// certificates and keys, stay as they are.
    ///
    /// # Errors
    /// [`Problem::Unsealing`] if its keys are sealed and would no longer be; [`Problem::Unsettled`] if parameters
    /// change while devices may be registered with the previous ones; or if writing fails, as in
    /// [`commit`](Self::commit).
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
