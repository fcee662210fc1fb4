//! How one account is told from another.

use std::fmt;

/// An account, identified by how it is reached from outside. The ledger stores it as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Account {
    /// The built-in emulator: `emulator`.
    #[default]
    Emulator,
    /// Something on this machine, on any port: `localhost`.
    Loopback,
    /// The account whose endpoint has this host, in lower case.
    Endpoint(String),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Account::Emulator => "emulator",
            Account::Loopback => "localhost",
            Account::Endpoint(host) => host,
        })
    }
}

impl Account {
    /// Whether it is on this machine, where only an emulator is.
    pub fn is_emulated(&self) -> bool {
        !matches!(self, Account::Endpoint(_))
    }
}

impl From<&str> for Account {
    /// Parses the text that a ledger stores.
    fn from(text: &str) -> Self {
        match text {
            "emulator" => Account::Emulator,
            "localhost" => Account::Loopback,
            host => Account::Endpoint(host.to_ascii_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_as_it_was_written() {
        for account in [
            Account::Emulator,
            Account::Loopback,
            Account::Endpoint(String::from("x-ats.iot.eu-west-1.amazonaws.com")),
        ] {
            assert_eq!(Account::from(account.to_string().as_str()), account);
        }
    }
}
