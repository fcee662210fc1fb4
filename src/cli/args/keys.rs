//! Where private keys come from.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where private keys come from, and who can read them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keys")]
pub(in crate::cli) struct KeyArgs {
    /// Who makes the private keys: AWS, which sends them; this machine, which sends a signing request; or the device, whose
    /// signing request is in the lot or beside it [default: aws]. A device that has a key from an earlier run keeps it.
    #[arg(long = "keys", value_name = "WHERE", value_enum)]
    pub(in crate::cli) source: Option<Keys>,

    /// What kind of keys to make, with --keys local [default: p256].
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(in crate::cli) key_type: Option<LocalKeyType>,

    /// Encrypt each private key to this age recipient before it is written anywhere; `export --identity` opens them.
    /// Repeatable: the identity of any one recipient is enough.
    #[arg(long, value_name = "RECIPIENT")]
    pub(in crate::cli) seal_to: Vec<String>,

    /// Encrypt to the recipients in this file too: one per line; empty lines and lines that begin with # are ignored.
    /// Repeatable.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) seal_to_file: Vec<PathBuf>,
}

/// A second place for the keys.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keys")]
pub(in crate::cli) struct SinkArgs {
    /// Append each certificate with its sealed private key to a file in this directory too, before the ledger has it: on
    /// another disk, or a network file system. `restore` makes a lost ledger anew from it. Needs --seal-to, or --keys csr.
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) keys_sink: Option<PathBuf>,
}

/// Who makes private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Keys {
    /// The service.
    Aws,
    /// This machine.
    Local,
    /// The device, which made a signing request of its own.
    Csr,
}

/// What kind of keys this machine makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LocalKeyType {
    /// ECDSA on P-256.
    P256,
    /// RSA, 2048 bits.
    Rsa2048,
}
