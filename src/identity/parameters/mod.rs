//! What a row becomes: the template parameters of one device.
//!
//! Owns which columns are sent, the constants beside them and their expansion, and the check that the result can be sent.

use std::borrow::Cow;
use std::fmt;

use super::{Identity, LotFault, LotShape, RowError, is_longer_than, payload_fault};
use crate::service::{CERTIFICATE_ID_DIGITS, MAX_PARAMETER_NAME, MAX_PARAMETER_VALUE};
use crate::wording::Excerpt;

/// How rows of a lot become parameters: every column that is sent is one, and every constant is one.
///
/// A constant's value is a text in which `{certificate_id}` stands for the id of the device's certificate, `{Column}` for
/// the row's value in that column, and `{{` and `}}` for a brace. `{certificate_id}` is the certificate's id even if a
/// column has that name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParameterPlan {
    /// Names of parameters, and their places in the row.
    columns: Vec<(String, usize)>,
    constants: Vec<(String, Text)>,
    empty_cells: EmptyCells,
    /// The place of the devices' certification requests.
    requests: Option<usize>,
}

/// Which columns of a lot are sent, and what becomes of their empty cells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SentColumns {
    /// Names of columns, in the order in which they are sent; `None` sends all of them.
    pub only: Option<Vec<String>>,
    /// The column of the devices' certification requests, which is never sent.
    pub requests: Option<String>,
    /// What becomes of empty cells.
    pub empty_cells: EmptyCells,
}

/// What becomes of a parameter whose cell is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmptyCells {
    /// It is sent, empty.
    #[default]
    Sent,
    /// It is left out, so that the template's default applies. So is a constant that consists of nothing but empty cells.
    LeftOut,
}

/// What is wrong with a constant. Never shows its value, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// It has no `=`.
    #[error("found no = in the parameter {}; wanted NAME=VALUE", Excerpt(.text))]
    NotAnAssignment {
        /// The whole text.
        text: String,
    },
    /// It has nothing before the `=`.
    #[error("found a parameter without a name; wanted NAME=VALUE")]
    EmptyName,
    /// A name over [`MAX_PARAMETER_NAME`].
    #[error("found a name of {characters} characters in the parameter {}; wanted at most 2048, the service's limit", Excerpt(.name))]
    NameTooLong {
        /// The name.
        name: String,
        /// Its length in characters.
        characters: usize,
    },
    /// A column to send that the lot does not have.
    #[error("found the column {}, which the lot does not have; wanted some of {}", Excerpt(.name), .known.iter().map(|name| Excerpt(name).to_string()).collect::<Vec<_>>().join(", "))]
    NotAColumn {
        /// The name.
        name: String,
        /// The lot's columns.
        known: Vec<String>,
    },
    /// A column of that name is sent.
    #[error("found the parameter {}, which is also a column of the lot; give it another name or leave it out", Excerpt(.name))]
    IsAColumn {
        /// The name.
        name: String,
    },
    /// A name given twice.
    #[error("found the parameter {} twice; give it once", Excerpt(.name))]
    Repeated {
        /// The name.
        name: String,
    },
    /// A `{` without its `}`.
    #[error("found an open brace without its end in the value of the parameter {}; wanted {{Name}}, or {{{{ for the brace itself", Excerpt(.name))]
    OpenBrace {
        /// The parameter's name.
        name: String,
    },
    /// A `}` without its `{`.
    #[error("found a closing brace without its beginning in the value of the parameter {}; wanted {{Name}}, or }}}} for the brace itself", Excerpt(.name))]
    StrayBrace {
        /// The parameter's name.
        name: String,
    },
    /// A name in braces that stands for nothing.
    #[error("found {{{}}} in the value of the parameter {}; wanted one of {}, or {{{{ and }}}} for the braces themselves", Excerpt(.placeholder), Excerpt(.name), list_placeholders(.known))]
    UnknownName {
        /// The parameter's name.
        name: String,
        /// The text in the braces.
        placeholder: String,
        /// What may stand there: `certificate_id` and the columns.
        known: Vec<String>,
    },
    /// A value over [`MAX_PARAMETER_VALUE`] for every row.
    #[error("found at least {characters} characters in the value of the parameter {}; wanted at most 4096, the service's limit", Excerpt(.name))]
    ValueTooLong {
        /// The parameter's name.
        name: String,
        /// The value's least length in characters.
        characters: usize,
    },
}

/// Splits the `NAME=VALUE` of a command line at the first `=`.
///
/// # Errors
///
/// If there is no `=`, or no name before it. The value is checked by [`ParameterPlan::new`].
pub fn parse_constant(text: &str) -> Result<(String, String), ParameterError> {
    match text.split_once('=') {
        None => Err(ParameterError::NotAnAssignment { text: text.to_owned() }),
        Some((name, _)) if name.trim().is_empty() => Err(ParameterError::EmptyName),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
    }
}

impl ParameterPlan {
    /// The plan that sends every column of a lot of this shape with these constants, each a name and a text to expand.
    ///
    /// # Errors
    ///
    /// As [`sending`](Self::sending).
    pub fn new(shape: &LotShape, constants: &[(String, String)]) -> Result<Self, ParameterError> {
        Self::sending(shape, &SentColumns::default(), constants)
    }

    /// The plan that sends some columns of a lot of this shape with these constants, each a name and a text to expand.
    ///
    /// # Errors
    ///
    /// The first column that is not in the lot or is named twice. The first constant whose name is empty, too long, another
    /// constant's or that of a column that is sent, or whose text has an unpaired brace, an unknown placeholder, or is too long
    /// for every row.
    pub fn sending(
        shape: &LotShape,
        sent: &SentColumns,
        constants: &[(String, String)],
    ) -> Result<Self, ParameterError> {
        let mut plan = Self {
            columns: sent_columns(shape, sent)?,
            constants: Vec::with_capacity(constants.len()),
            empty_cells: sent.empty_cells,
            requests: sent.requests.as_ref().and_then(|name| place_of(shape, name)),
        };
        // The column that is never sent is no placeholder either.
        let known: Vec<(String, usize)> = shape
            .columns
            .iter()
            .cloned()
            .zip(0..)
            .filter(|(_, place)| plan.requests != Some(*place))
            .collect();
        for (name, value) in constants {
            plan.check_name(name)?;
            let text = Text::parse(value, &known).map_err(|fault| fault.of(name, &known))?;
            let characters = text.least_characters();
            if characters > MAX_PARAMETER_VALUE {
                return Err(ParameterError::ValueTooLong { name: name.clone(), characters });
            }
            plan.constants.push((name.clone(), text));
        }
        Ok(plan)
    }

    /// The parameters' names: the columns in their order, then the constants in theirs. All different.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let columns = self.columns.iter().map(|(name, _)| name);
        columns.chain(self.constants.iter().map(|(name, _)| name)).map(String::as_str)
    }

    /// The parameters of the device `identity` with the certificate `certificate_id`, in the order of [`Self::names`].
    ///
    /// `identity` must be of the shape that the plan was made for; values that it lacks are left out or empty.
    pub fn expand<'a>(
        &'a self,
        identity: &'a Identity,
        certificate_id: &'a str,
    ) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let is_sent = |value: &str| self.empty_cells == EmptyCells::Sent || !value.is_empty();
        let columns = self.columns.iter().filter_map(move |(name, place)| {
            let value = identity.values.get(*place).filter(|value| is_sent(value))?;
            Some((name.as_str(), Cow::Borrowed(value.as_str())))
        });
        let constants = self.constants.iter().filter_map(move |(name, text)| {
            let value = text.expand(identity, certificate_id);
            (is_sent(&value) || !text.has_cells()).then_some((name.as_str(), value))
        });
        columns.chain(constants)
    }

    /// Whether the parameter `name` has the certificate's id in it.
    pub fn has_certificate_id(&self, name: &str) -> bool {
        let has_id = |text: &Text| text.0.iter().any(|piece| matches!(piece, Piece::CertificateId));
        self.constants.iter().any(|(constant, text)| constant == name && has_id(text))
    }

    /// The certification request of `identity`; `None` where the lot has none.
    pub fn request<'a>(&self, identity: &'a Identity) -> Option<&'a str> {
        self.requests.and_then(|place| identity.values.get(place)).map(String::as_str)
    }

    /// Checks that what `identity` becomes can be sent, whatever its certificate's id: to be called before anything is sent.
    ///
    /// # Errors
    ///
    /// Every constant that expands to more than [`MAX_PARAMETER_VALUE`] characters, and a message over
    /// [`MAX_PAYLOAD`](crate::service::MAX_PAYLOAD). The row's own values were checked when they were read.
    pub fn check(&self, identity: &Identity) -> Result<(), Vec<RowError>> {
        if self.constants.is_empty() {
            return Ok(());
        }
        let any_id = "0".repeat(CERTIFICATE_ID_DIGITS);
        let parameters: Vec<_> = self.expand(identity, &any_id).collect();
        // Values that are the row's own were checked with it.
        let mut errors: Vec<RowError> = parameters
            .iter()
            .filter(|(_, value)| is_longer_than(value, MAX_PARAMETER_VALUE))
            .map(|(name, value)| expanded_too_far(identity.line, name, value))
            .collect();
        let all = parameters.iter().map(|(name, value)| (*name, value.as_ref()));
        errors.extend(payload_fault(identity.line, all));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Whether a further constant may have this name.
    fn check_name(&self, name: &str) -> Result<(), ParameterError> {
        let name = name.to_owned();
        if name.trim().is_empty() {
            Err(ParameterError::EmptyName)
        } else if is_longer_than(&name, MAX_PARAMETER_NAME) {
            Err(ParameterError::NameTooLong { characters: name.chars().count(), name })
        } else if self.columns.iter().any(|(column, _)| *column == name) {
            Err(ParameterError::IsAColumn { name })
        } else if self.constants.iter().any(|(other, _)| *other == name) {
            Err(ParameterError::Repeated { name })
        } else {
            Ok(())
        }
    }
}

fn place_of(shape: &LotShape, name: &str) -> Option<usize> {
    shape.columns.iter().position(|column| column == name)
}

/// The columns that are sent, with their places in the row.
fn sent_columns(shape: &LotShape, sent: &SentColumns) -> Result<Vec<(String, usize)>, ParameterError> {
    let is_request = |name: &str| sent.requests.as_deref() == Some(name);
    let all = || shape.columns.iter().cloned().zip(0..).filter(|(name, _)| !is_request(name));
    let Some(names) = &sent.only else { return Ok(all().collect()) };
    let mut columns: Vec<(String, usize)> = Vec::with_capacity(names.len());
    for name in names {
        let found = all().find(|(column, _)| column == name).ok_or_else(|| {
            let known = all().map(|(column, _)| column).collect();
            ParameterError::NotAColumn { name: name.clone(), known }
        })?;
        if columns.contains(&found) {
            return Err(ParameterError::Repeated { name: name.clone() });
        }
        columns.push(found);
    }
    Ok(columns)
}

/// The placeholder for the certificate's id.
const CERTIFICATE_ID: &str = "certificate_id";

/// A constant's value, parsed. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
struct Text(Vec<Piece>);

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    CertificateId,
    /// The value in a column of the lot, by its index.
    Column(usize),
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} pieces)", self.0.len())
    }
}

/// What is wrong with a text, without the parameter's name.
enum Fault {
    OpenBrace,
    StrayBrace,
    UnknownName(String),
}

impl Fault {
    fn of(self, name: &str, columns: &[(String, usize)]) -> ParameterError {
        let name = name.to_owned();
        match self {
            Fault::OpenBrace => ParameterError::OpenBrace { name },
            Fault::StrayBrace => ParameterError::StrayBrace { name },
            Fault::UnknownName(placeholder) => {
                let names = columns.iter().map(|(column, _)| column.clone());
                let known = std::iter::once(CERTIFICATE_ID.to_owned()).chain(names).collect();
                ParameterError::UnknownName { name, placeholder, known }
            }
        }
    }
}

impl Text {
    fn parse(text: &str, columns: &[(String, usize)]) -> Result<Self, Fault> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            literal.push_str(&rest[..brace]);
            let after = &rest[brace + 1..];
            rest = match (&rest[brace..=brace], after.chars().next()) {
                ("{", Some('{')) | ("}", Some('}')) => {
                    literal.push_str(&rest[brace..=brace]);
                    &after[1..]
                }
                ("{", _) => {
                    let (placeholder, after) = after.split_once('}').ok_or(Fault::OpenBrace)?;
                    push_literal(&mut pieces, &mut literal);
                    pieces.push(Piece::named(placeholder, columns)?);
                    after
                }
                _ => return Err(Fault::StrayBrace),
            };
        }
        literal.push_str(rest);
        push_literal(&mut pieces, &mut literal);
        Ok(Self(pieces))
    }

    fn expand<'a>(&'a self, identity: &'a Identity, certificate_id: &'a str) -> Cow<'a, str> {
        let pieces = || self.0.iter().map(|piece| piece.expand(identity, certificate_id));
        match self.0.len() {
            0 => Cow::Borrowed(""),
            1 => pieces().next().map_or(Cow::Borrowed(""), Cow::Borrowed),
            _ => Cow::Owned(pieces().collect()),
        }
    }

    /// Whether it has a placeholder for a row's value.
    fn has_cells(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Column(_)))
    }

    /// How many characters it has for a row of empty values.
    fn least_characters(&self) -> usize {
        let characters = |piece: &Piece| match piece {
            Piece::Literal(text) => text.chars().count(),
            Piece::CertificateId => CERTIFICATE_ID_DIGITS,
            Piece::Column(_) => 0,
        };
        self.0.iter().map(characters).sum()
    }
}

impl Piece {
    fn named(name: &str, columns: &[(String, usize)]) -> Result<Self, Fault> {
        match columns.iter().find(|(column, _)| column == name) {
            _ if name == CERTIFICATE_ID => Ok(Piece::CertificateId),
            Some((_, place)) => Ok(Piece::Column(*place)),
            None => Err(Fault::UnknownName(name.to_owned())),
        }
    }

    fn expand<'a>(&'a self, identity: &'a Identity, certificate_id: &'a str) -> &'a str {
        match self {
            Piece::Literal(text) => text,
            Piece::CertificateId => certificate_id,
            Piece::Column(column) => identity.values.get(*column).map_or("", String::as_str),
        }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, literal: &mut String) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal)));
    }
}

fn list_placeholders(known: &[String]) -> String {
    const LISTED: usize = 20;
    let names: Vec<String> = known.iter().take(LISTED).map(|name| format!("{{{}}}", Excerpt(name))).collect();
    match known.len().saturating_sub(LISTED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn expanded_too_far(line: u64, name: &str, value: &str) -> RowError {
    RowError {
        line,
        column: None,
        fault: LotFault::Parameters,
        found: format!(
            "{} characters in the parameter {} after expansion",
            value.chars().count(),
            Excerpt(name)
        ),
        wanted: String::from("at most 4096 characters, the service's limit for a parameter's value"),
    }
}

#[cfg(test)]
mod tests;
