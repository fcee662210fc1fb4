//! What tells one account from another.

use std::fmt;

use super::binding::Binding;

/// What tells one account from another, as far as the outside can: where it is reached. A ledger has it as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The built-in emulator: `emulator`.
    Emulator,
    /// Something on this machine, wherever it listens: `localhost`.
    Loopback,
    /// The one whose endpoint has this host, in lower case.
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
    /// The account that a text of a ledger names.
    pub fn named(text: &str) -> Self {
        match text {
            "emulator" => Account::Emulator,
            "localhost" => Account::Loopback,
            host => Account::Endpoint(host.to_ascii_lowercase()),
        }
    }
}

impl Binding {
    /// Whose ledger it is.
    pub fn account(&self) -> Account {
        Account::named(&self.account)
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
