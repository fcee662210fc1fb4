//! What an account's answers and a machine's figures mean for a run.

use std::time::Duration;

use crate::rate::Rate;

/// How far this machine's clock may be off; beyond this, signatures are refused. Source: reports of users, cited in
/// the AWS SDKs' issues; the service's own message names 5 minutes.
pub const SKEW_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Bytes of ledger per device: its row, certificate and key, and their share of the write-ahead log. Measured with
/// RSA keys and rows of 200 bytes: under 7 KiB.
const LEDGER_BYTES: u64 = 10 * 1024;
/// Bytes for what else is written meanwhile: the log before it is moved into the file, results, progress.
const MARGIN: u64 = 64 << 20;

/// How much room a ledger needs for this many more devices, in bytes.
pub fn needed_room(devices: u64) -> u64 {
    devices.saturating_mul(LEDGER_BYTES).saturating_add(MARGIN)
}

/// How an endpoint relates to the one that the account's DescribeEndpoint returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointMatch {
    /// It is the same.
    Same,
    /// It is another account's.
    Other,
    /// It is named differently, and may still be the same: a custom domain, for one.
    Unclear,
}

/// Compares an endpoint with the one that DescribeEndpoint returns. Case is ignored, and the older form of an
/// endpoint, without `-ats`, belongs to the same account.
pub fn compare_endpoints(given: &str, described: &str) -> EndpointMatch {
    let plain = |host: &str| {
        let host = host.trim_end_matches(":443").to_ascii_lowercase();
        match host.split_once('.') {
            Some((prefix, rest)) => format!("{}.{rest}", prefix.trim_end_matches("-ats")),
            None => host,
        }
    };
    let (given, described) = (plain(given), plain(described));
    if given == described {
        EndpointMatch::Same
    } else if [&given, &described].iter().all(|host| host.contains(".iot.")) {
        EndpointMatch::Other
    } else {
        EndpointMatch::Unclear
    }
}

/// The account in a role's ARN. Source: IAM User Guide, "IAM identifiers".
pub fn role_account(arn: &str) -> Option<&str> {
    let mut parts = arn.split(':');
    let is_iam = parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("iam");
    let account = parts.nth(1)?;
    let is_role = parts.next().is_some_and(|resource| resource.starts_with("role/"));
    (is_iam && is_role && account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
        .then_some(account)
}

/// How long `devices` take at least, if each needs one request of both kinds.
pub fn time_left(devices: u64, create: Rate, register: Rate) -> Duration {
    let slower = create.as_per_second().min(register.as_per_second());
    Duration::try_from_secs_f64((devices as f64 / slower).ceil()).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_told_from_another_accounts() {
        let host = "a1b2c3-ats.iot.eu-west-1.amazonaws.com";
        use EndpointMatch::{Other, Same, Unclear};
        for (given, is) in [
            (host, Same),
            ("A1B2C3-ATS.iot.eu-west-1.amazonaws.com", Same),
            ("a1b2c3.iot.eu-west-1.amazonaws.com", Same),
            ("a1b2c3-ats.iot.eu-west-1.amazonaws.com:443", Same),
            ("zzzz-ats.iot.eu-west-1.amazonaws.com", Other),
            ("a1b2c3-ats.iot.eu-west-2.amazonaws.com", Other),
            ("iot.example.com", Unclear),
            ("x", Unclear),
        ] {
            assert_eq!(compare_endpoints(given, host), is, "{given}");
        }
        assert_eq!(compare_endpoints("localhost:1", "localhost:2"), Unclear);
    }

    #[test]
    fn a_roles_account_is_in_its_arn() {
        assert_eq!(role_account("arn:aws:iam::123456789012:role/service-role/Minting"), Some("123456789012"));
        assert_eq!(role_account("arn:aws-cn:iam::123456789012:role/x"), Some("123456789012"));
        for wrong in [
            "",
            "role",
            "arn:aws:iam::1234:role/x",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:sts::123456789012:role/x",
        ] {
            assert_eq!(role_account(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_slower_rate_decides_how_long_it_takes() {
        let rate = |n| Rate::per_second(n).unwrap();
        assert_eq!(time_left(1_000, rate(10.0), rate(20.0)), Duration::from_secs(100));
        assert_eq!(time_left(1, rate(10.0), rate(3.0)), Duration::from_secs(1));
    }
}
