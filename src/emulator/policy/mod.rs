//! Policy documents: parses them, and decides whether they allow an action.
//!
//! Source: AWS IoT Developer Guide, "AWS IoT Core policies", and the IAM policy grammar that it refers to. Condition
//! operators other than those of `Operator` are accepted; they never hold in an Allow and always hold in a Deny.

mod pattern;

use serde_json::{Map, Value};

/// The most characters of a document, not counting white space (CreatePolicy).
const MAX_DOCUMENT: usize = 2048;
const VERSIONS: [&str; 2] = ["2012-10-17", "2008-10-17"];
const STATEMENT_KEYS: [&str; 7] =
    ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];

/// A parsed policy document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    statements: Vec<Statement>,
}

/// Why a text is not a policy document: where, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy document is malformed: {0}")]
pub struct Malformed(String);

/// A set of documents' decision on an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it, and none denies it.
    Allowed,
    /// A statement denies it.
    Denied,
    /// No statement applies, so it is denied.
    Unmentioned,
}

/// An action that a principal attempts.
pub struct Attempt<'a> {
    /// The action, such as `iot:Publish`.
    pub action: &'a str,
    /// The resource's ARN; `None` to judge the action alone, whatever resource a statement names.
    pub resource: Option<&'a str>,
    /// Looks up a policy variable or condition key, such as `iot:ClientId`.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Statement {
    allows: bool,
    actions: Patterns,
    resources: Patterns,
    conditions: Vec<Condition>,
}

/// The patterns of `Action`, `Resource`, `NotAction` or `NotResource`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Patterns {
    negated: bool,
    patterns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    operator: Option<Operator>,
    key: String,
    values: Vec<String>,
}

/// A condition operator that is evaluated. It may be combined with `IfExists`, and with `ForAnyValue:` or
/// `ForAllValues:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operator {
    comparison: Comparison,
    negated: bool,
    if_exists: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    EqualIgnoringCase,
    Like,
}

/// The decision of `documents` together on an attempt.
pub fn decide<'d>(documents: impl IntoIterator<Item = &'d Document>, attempt: &Attempt<'_>) -> Decision {
    let mut decision = Decision::Unmentioned;
    for statement in documents.into_iter().flat_map(|document| &document.statements) {
        if statement.applies(attempt) {
            if !statement.allows {
                return Decision::Denied;
            }
            decision = Decision::Allowed;
        }
    }
    decision
}

impl Document {
    /// Parses the document of an AWS IoT policy.
    ///
    /// # Errors
    /// [`Malformed`] for the first error in it.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let length = text.chars().filter(|character| !character.is_whitespace()).count();
        if length > MAX_DOCUMENT {
            let found =
                format!("{length} characters without white space; at most {MAX_DOCUMENT} are allowed");
            return Err(Malformed(found));
        }
        Self::parse_any_length(text)
    }

    /// Parses the document of an IAM policy, which may be longer than that of an AWS IoT policy.
    ///
    /// # Errors
    /// [`Malformed`] for the first error in it.
    pub fn parse_any_length(text: &str) -> Result<Self, Malformed> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            Malformed(format!("not JSON at line {} column {}", error.line(), error.column()))
        })?;
        let top = object(&value, "the document")?;
        only(top, &["Version", "Id", "Statement"], "the document")?;
        if let Some(version) = top.get("Version")
            && !version.as_str().is_some_and(|version| VERSIONS.contains(&version))
        {
            return Err(Malformed(format!("Version is {version}, not \"2012-10-17\"")));
        }
        let statements = match top.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().collect(),
            Some(statement) => vec![statement],
            None => return Err(Malformed(String::from("there is no Statement"))),
        };
        if statements.is_empty() {
            return Err(Malformed(String::from("Statement is empty")));
        }
        let numbered = statements.into_iter().enumerate();
        let statements =
            numbered.map(|(number, value)| Statement::read(value, &format!("Statement {number}")));
        Ok(Self { statements: statements.collect::<Result<_, _>>()? })
    }
}

impl Statement {
    fn read(value: &Value, place: &str) -> Result<Self, Malformed> {
        let statement = object(value, place)?;
        only(statement, &STATEMENT_KEYS, place)?;
        let allows = match statement.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(Malformed(format!("{place}: Effect is not Allow or Deny"))),
        };
        let actions = Patterns::read(statement, "Action", "NotAction", place)?;
        let is_action = |pattern: &String| pattern == "*" || pattern.split_once(':').is_some();
        if let Some(wrong) = actions.patterns.iter().find(|pattern| !is_action(pattern)) {
            return Err(Malformed(format!("{place}: {wrong:?} is not an action such as \"iot:Publish\"")));
        }
        let resources = Patterns::read(statement, "Resource", "NotResource", place)?;
        let is_resource = |pattern: &String| pattern.starts_with(['*', '$']) || pattern.starts_with("arn:");
        if let Some(wrong) = resources.patterns.iter().find(|pattern| !is_resource(pattern)) {
            return Err(Malformed(format!("{place}: {wrong:?} is not an ARN or \"*\"")));
        }
        let conditions = match statement.get("Condition") {
            Some(conditions) => read_conditions(conditions, place)?,
            None => Vec::new(),
        };
        Ok(Self { allows, actions, resources, conditions })
    }

    fn applies(&self, attempt: &Attempt<'_>) -> bool {
        let of_action = |pattern: &String| {
            // Actions are compared case-insensitively.
            pattern::matches(&pattern.to_ascii_lowercase(), &attempt.action.to_ascii_lowercase())
        };
        let selects_resource = |resource: &str| {
            self.resources.select(|pattern| {
                pattern::expand(pattern, attempt.variable)
                    .is_some_and(|pattern| pattern::matches_expanded(&pattern, resource))
            })
        };
        self.actions.select(of_action)
            && attempt.resource.is_none_or(selects_resource)
            && self.conditions.iter().all(|condition| condition.holds(attempt, self.allows))
    }
}

impl Patterns {
    fn read(
        statement: &Map<String, Value>,
        key: &str,
        negation: &str,
        place: &str,
    ) -> Result<Self, Malformed> {
        let (negated, key, value) = match (statement.get(key), statement.get(negation)) {
            (Some(value), None) => (false, key, value),
            (None, Some(value)) => (true, negation, value),
            _ => return Err(Malformed(format!("{place}: there must be one of {key} and {negation}"))),
        };
        let patterns = strings(value).filter(|patterns| !patterns.is_empty());
        let wanted = || Malformed(format!("{place}: {key} is not a string or a list of strings"));
        Ok(Self { negated, patterns: patterns.ok_or_else(wanted)? })
    }

    fn select(&self, matches: impl Fn(&String) -> bool) -> bool {
        self.patterns.iter().any(matches) != self.negated
    }
}

impl Condition {
    /// Whether the condition holds. One that cannot be evaluated never holds in an Allow and always in a Deny.
    fn holds(&self, attempt: &Attempt<'_>, allows: bool) -> bool {
        let Some(operator) = self.operator else { return !allows };
        let Some(found) = (attempt.variable)(&self.key) else {
            return operator.if_exists || operator.negated;
        };
        let equals = |value: &String| match operator.comparison {
            Comparison::Equal => *value == found,
            Comparison::EqualIgnoringCase => value.eq_ignore_ascii_case(&found),
            Comparison::Like => pattern::matches(value, &found),
        };
        let expanded = self.values.iter().filter_map(|value| pattern::expand(value, attempt.variable));
        let mut values = expanded.map(|value| pattern::literal(&value));
        values.any(|value| equals(&value)) != operator.negated
    }
}

fn read_conditions(value: &Value, place: &str) -> Result<Vec<Condition>, Malformed> {
    let mut conditions = Vec::new();
    for (operator, keys) in object(value, &format!("{place}: Condition"))? {
        for (key, values) in object(keys, &format!("{place}: Condition {operator}"))? {
            let wanted = || Malformed(format!("{place}: {operator} {key} is not a string or a list of them"));
            let values = strings(values).ok_or_else(wanted)?;
            conditions.push(Condition { operator: Operator::of(operator), key: key.clone(), values });
        }
    }
    Ok(conditions)
}

impl Operator {
    fn of(name: &str) -> Option<Self> {
        let name = name.strip_prefix("ForAnyValue:").or(name.strip_prefix("ForAllValues:")).unwrap_or(name);
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (comparison, negated) = match name {
            "StringEquals" | "ArnEquals" => (Comparison::Equal, false),
            "StringNotEquals" | "ArnNotEquals" => (Comparison::Equal, true),
            "StringEqualsIgnoreCase" | "Bool" => (Comparison::EqualIgnoringCase, false),
            "StringNotEqualsIgnoreCase" => (Comparison::EqualIgnoringCase, true),
            "StringLike" | "ArnLike" => (Comparison::Like, false),
            "StringNotLike" | "ArnNotLike" => (Comparison::Like, true),
            _ => return None,
        };
        Some(Self { comparison, negated, if_exists })
    }
}

fn object<'v>(value: &'v Value, place: &str) -> Result<&'v Map<String, Value>, Malformed> {
    value.as_object().ok_or_else(|| Malformed(format!("{place} is not an object")))
}

fn only(object: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), Malformed> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Malformed(format!("{place} has an unknown key {key:?}"))),
        None => Ok(()),
    }
}

/// One or several strings or booleans, as strings.
fn strings(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => one(value).map(|text| vec![text]),
    }
}

#[cfg(test)]
mod tests;
