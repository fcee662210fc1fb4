//! Whether the credentials belong to the account that a ledger was made for.
//!
//! In another account nothing of the ledger is found, which must not be taken for "deleted".

use super::exit::{Exit, Fatal};
use super::question::answer;
use super::target::{Site, asked};
use crate::control_plane::AskError;
use crate::endpoint::Endpoint;
use crate::ledger::Account;
use crate::preflight::{EndpointMatch, compare_endpoints};

/// What is known about whose account it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ownership {
    /// DescribeEndpoint returned the ledger's endpoint.
    Shown,
    /// It cannot be told, for this reason: what is not found may be in another account.
    Unclear(String),
}

/// Compares the account's DescribeEndpoint with what the ledger is bound to.
///
/// # Errors
/// If it is another account, or the account does not answer.
pub(super) async fn ownership(site: &Site, ledgers: &Account) -> Result<Ownership, Fatal> {
    let Account::Endpoint(host) = ledgers else {
        return Ok(Ownership::Unclear(String::from("on this machine accounts cannot be told apart")));
    };
    let plane = site.control_plane();
    let described = match answer("DescribeEndpoint", plane.data_endpoint()).await {
        Ok(described) => described,
        Err(
            error @ (AskError::NotPermitted { .. } | AskError::NotFound { .. } | AskError::Rejected { .. }),
        ) => {
            return Ok(Ownership::Unclear(error.to_string()));
        }
        Err(error) => return Err(asked(&error, "", "the ledger was not changed; try again later")),
    };
    let its_host = described.parse().map(|endpoint: Endpoint| endpoint.host().to_owned());
    judge(host, its_host.as_ref().unwrap_or(&described))
}

fn judge(ledgers: &str, described: &str) -> Result<Ownership, Fatal> {
    match compare_endpoints(ledgers, described) {
        EndpointMatch::Same => Ok(Ownership::Shown),
        EndpointMatch::Unclear => {
            Ok(Ownership::Unclear(format!("DescribeEndpoint returned {described}, the ledger has {ledgers}")))
        }
        EndpointMatch::Other => Err(Fatal::new(
            Exit::Unavailable,
            format!(
                "the credentials are of another account than the ledger's: DescribeEndpoint returned {described}; wanted \
                 {ledgers}; use the credentials of the ledger's account (--profile chooses them), and check \
                 --control-endpoint. Nothing was changed"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_account_is_refused_and_a_custom_domain_shows_nothing() {
        let ledgers = "a1-ats.iot.eu-west-1.amazonaws.com";
        assert_eq!(judge(ledgers, "A1-ats.iot.eu-west-1.amazonaws.com").unwrap(), Ownership::Shown);
        let other = judge(ledgers, "zz-ats.iot.eu-west-1.amazonaws.com").unwrap_err();
        assert_eq!(other.exit, Exit::Unavailable);
        for word in ["zz-ats", "a1-ats", "--profile"] {
            assert!(other.message.contains(word), "{}", other.message);
        }
        assert!(matches!(judge("iot.example.com", ledgers).unwrap(), Ownership::Unclear(_)));
    }
}
