//! The devices' own certification requests: a column of the lot, or a file per device in a folder.
//!
//! In both cases a request is a value in its row, so a changed request counts as a changed row.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use super::exit::Fatal;
use super::lot_args::RequestArgs;
use super::settings::usage;
use crate::csr;
use crate::identity::{Identity, LotFault, LotShape, RowError};
use crate::wording::Excerpt;

/// Where the requests are.
#[derive(Debug, Clone)]
pub(super) enum RequestSource {
    Column(String),
    Folder(PathBuf),
}

/// The column that is added for requests from a folder.
const FOLDER_COLUMN: &str = "(signing request)";

/// More than any request's size, in bytes; anything longer is something else.
const MAX_FILE: u64 = 16 * 1024;

impl RequestSource {
    /// The source that the arguments request, if any.
    pub(super) fn new(args: RequestArgs) -> Result<Option<Self>, Fatal> {
        match (args.csr_column, args.csr_dir) {
            (Some(column), _) => Ok(Some(Self::Column(column))),
            (None, Some(folder)) if folder.is_dir() => Ok(Some(Self::Folder(folder))),
            (None, Some(folder)) => {
                Err(usage("--csr-dir", format!("found no folder at {}", folder.display())))
            }
            (None, None) => Ok(None),
        }
    }

    /// The name of the column with the requests, which is never sent.
    pub(super) fn column(&self) -> &str {
        match self {
            Self::Column(column) => column,
            Self::Folder(_) => FOLDER_COLUMN,
        }
    }

    /// A lot's shape with the column of its requests, and that column's position.
    pub(super) fn extend(&self, mut shape: LotShape) -> Result<(LotShape, usize), Fatal> {
        let found = shape.columns.iter().position(|column| column == self.column());
        match (self, found) {
            (Self::Column(column), None) => {
                let error = format!("found no column \"{}\" in the lot", Excerpt(column));
                Err(usage("--csr-column", error))
            }
            (Self::Column(_), Some(place)) if place == shape.key_column => {
                Err(usage("--csr-column", "names the column that identifies devices"))
            }
            (Self::Column(_), Some(place)) => Ok((shape, place)),
            (Self::Folder(_), Some(_)) => {
                Err(usage("--csr-dir", format!("the lot has a column of the name {FOLDER_COLUMN} already")))
            }
            (Self::Folder(_), None) => {
                shape.columns.push(FOLDER_COLUMN.to_owned());
                let place = shape.columns.len() - 1;
                Ok((shape, place))
            }
        }
    }

    /// Adds the request to a row.
    pub(super) fn attach(&self, mut identity: Identity) -> Result<Identity, Vec<RowError>> {
        let Self::Folder(folder) = self else { return Ok(identity) };
        let error = |found: String, wanted: &str| {
            let column = Some(FOLDER_COLUMN.to_owned());
            let (line, wanted) = (identity.line, wanted.to_owned());
            vec![RowError { line, column, fault: LotFault::Request, found, wanted }]
        };
        if identity.key.contains(['/', '\0']) {
            let found = format!("the key \"{}\", which cannot be the name of a file", Excerpt(&identity.key));
            return Err(error(found, "a key without a slash, or the requests in a column of the lot"));
        }
        let path = folder.join(format!("{}.csr", identity.key));
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
        if let Err(why) = read {
            return Err(error(
                format!("no request in {}: {why}", path.display()),
                "a PKCS #10 request there",
            ));
        }
        // A text that is not a request is reported with the row's other errors.
        let text =
            csr::read(&bytes).map_or_else(|_| String::from_utf8_lossy(&bytes).into_owned(), |csr| csr.pem);
        identity.values.push(text);
        Ok(identity)
    }
}

/// Checks the requests of a lot's rows: each by itself, and whether two are for the same key.
pub(super) struct RequestCheck {
    column: String,
    place: usize,
    /// The line on which each key first occurred.
    seen: HashMap<[u8; 16], u64>,
}

impl RequestCheck {
    /// A checker for requests in this column.
    pub(super) fn new(column: String, place: usize) -> Self {
        Self { column, place, seen: HashMap::new() }
    }

    /// What is wrong with a row's request.
    pub(super) fn check(&mut self, identity: &Identity) -> Option<RowError> {
        let text = identity.values.get(self.place).map_or("", String::as_str);
        let error = |found: String, wanted: &str| {
            let (line, column) = (identity.line, Some(self.column.clone()));
            Some(RowError { line, column, fault: LotFault::Request, found, wanted: wanted.to_owned() })
        };
        match csr::check(text.as_bytes()) {
            Err(fault) => error(fault.to_string(), fault.wanted()),
            Ok(checked) => match *self.seen.entry(checked.key).or_insert(identity.line) {
                first if first == identity.line => None,
                first => error(
                    format!("a request for the key that line {first} asks a certificate for"),
                    "a key of its own for every device",
                ),
            },
        }
    }
}
