//! The arguments for how a lot is read and what its rows become.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::identity::Delimiter;

/// How a lot is read, and what its rows become.
#[derive(Debug, Args)]
#[command(next_help_heading = "Lot")]
pub(super) struct LotArgs {
    /// What separates the columns: `,` `;` `tab` `|`, or `auto`: the only one of these that the header has unquoted.
    #[arg(long, value_name = "CHARACTER", default_value = "auto", value_parser = delimiter)]
    pub(super) delimiter: SoughtDelimiter,

    /// The column that identifies a device [default: SerialNumber, else DeviceId, else ThingName].
    #[arg(long, value_name = "COLUMN")]
    pub(super) key_column: Option<String>,

    /// Send only these columns [default: all of them]. Repeatable, or with commas between the names.
    #[arg(long = "columns", id = "sent_columns", value_name = "COLUMN,…", value_delimiter = ',')]
    pub(super) sent_columns: Vec<String>,

    /// How to treat empty cells: send them as empty strings, or leave them out, so that the template's default applies.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Empty::Send)]
    pub(super) empty: Empty,

    /// Refuse values that look as if a spreadsheet had changed them, such as 4.2E+14 or 1-Mar, instead of warning.
    #[arg(long)]
    pub(super) strict: bool,

    /// Another template parameter for every device; {certificate_id} and {Column} expand. Repeatable.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(super) params: Vec<String>,
}

/// Where the devices' own certification requests are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keys")]
pub(super) struct RequestArgs {
    /// The column that has each device's own signing request (PKCS #10, PEM), with --keys csr. It is never sent as a parameter.
    #[arg(long, value_name = "COLUMN", conflicts_with = "csr_dir")]
    pub(super) csr_column: Option<String>,

    /// The folder that has each device's own signing request as KEY.csr, with --keys csr.
    #[arg(long, value_name = "DIR")]
    pub(super) csr_dir: Option<PathBuf>,
}

/// What separates the columns; `None` is left to the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SoughtDelimiter(pub(super) Option<Delimiter>);

/// What becomes of empty cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Empty {
    /// Send empty strings.
    Send,
    /// Leave the parameters out.
    Omit,
}

pub(super) fn delimiter(text: &str) -> Result<SoughtDelimiter, String> {
    Ok(SoughtDelimiter(match text.to_ascii_lowercase().as_str() {
        "auto" => None,
        "," | "comma" => Some(Delimiter::Comma),
        ";" | "semicolon" => Some(Delimiter::Semicolon),
        "tab" | "\t" | "\\t" => Some(Delimiter::Tab),
        "|" | "pipe" => Some(Delimiter::Pipe),
        _ => return Err(String::from("wanted one of , ; tab | auto (in a shell, ';' and '|' need quotes)")),
    }))
}
