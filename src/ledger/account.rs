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
    /// Parses the text stored in a ledger.
    pub fn named(text: &str) -> Self {
        match text {
            "emulator" => Account::Emulator,
            "localhost" => Account::Loopback,
            host => Account::Endpoint(host.to_ascii_lowercase()),
        }
    }
}

impl From<&str> for Account {
    fn from(text: &str) -> Self {
        Account::named(text)
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
            assert_eq!(Account::named(&account.to_string()), account);
        }
    }
}
