//! Where private keys come from.

use clap::{Args, ValueEnum};

/// Where private keys come from, and who can read them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Keys")]
pub(in crate::cli) struct KeyArgs {
    /// Who makes the private keys: AWS, which sends them, or this machine, which sends a signing request. A device that has
    /// a key from an earlier run keeps it.
    #[arg(long = "keys", value_name = "WHERE", value_enum, default_value_t = Keys::Aws)]
    pub(in crate::cli) source: Keys,

    /// What kind of keys to make, with --keys local [default: p256].
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(in crate::cli) key_type: Option<LocalKeyType>,

    /// Encrypt each private key to this age recipient before it is written anywhere; `export --identity` opens them.
    /// Repeatable: the identity of any one recipient is enough.
    #[arg(long, value_name = "RECIPIENT")]
    pub(in crate::cli) seal_to: Vec<String>,
}

/// Who makes private keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Keys {
    /// The service.
    Aws,
    /// This machine.
    Local,
}

/// What kind of keys this machine makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LocalKeyType {
    /// ECDSA on P-256.
    P256,
    /// RSA, 2048 bits.
    Rsa2048,
}
