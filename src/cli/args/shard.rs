//! The options for one of several processes that share a job.

use std::str::FromStr;
use std::time::SystemTime;

use clap::Args;

use crate::instant;
use crate::rate::Rate;

/// Which part of a job this process does, and when it begins.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shards")]
pub(in crate::cli) struct ShardArgs {
    /// Do part I of N, from 0; the parts together are the job. `auto/N` takes I from AWS Batch, Kubernetes, Slurm or Cloud Run.
    #[arg(long, value_name = "I/N")]
    pub(in crate::cli) shard: Option<TypedShard>,

    /// Begin at this time, such as 2026-01-31T12:00:00Z, so that all shards begin together; a later start says how late it is.
    #[arg(long, value_name = "TIME", value_parser = begin)]
    pub(in crate::cli) start_at: Option<SystemTime>,
}

/// What all shards of a provisioning run share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shards")]
pub(in crate::cli) struct TotalArgs {
    /// Create and register at this rate at most, all shards together.
    #[arg(long, value_name = "RATE", requires = "shard", conflicts_with_all = ["create_rate", "register_rate"])]
    pub(in crate::cli) total_rate: Option<Rate>,

    #[command(flatten)]
    pub(in crate::cli) connections: TotalConnectionsArgs,
}

/// The connections that all shards of a run share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shards")]
pub(in crate::cli) struct TotalConnectionsArgs {
    /// Open this many connections, all shards together.
    #[arg(long, value_name = "N", requires = "shard", conflicts_with = "connections", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) total_connections: Option<u64>,
}

/// `I/N` as it was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct TypedShard {
    /// `None`: the scheduler says which.
    pub(in crate::cli) index: Option<u32>,
    pub(in crate::cli) of: u32,
}

/// More shards than any scheduler's array has tasks.
const MOST: u32 = 100_000;

impl FromStr for TypedShard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("wanted I/N or auto/N, such as 0/4: N at most {MOST}, and I from 0 to N-1");
        let (index, of) = text.split_once('/').ok_or_else(wanted)?;
        let of: u32 = of.parse().ok().filter(|of| (1..=MOST).contains(of)).ok_or_else(wanted)?;
        if index == "auto" {
            return Ok(Self { index: None, of });
        }
        let index = index.parse().ok().filter(|index| *index < of).ok_or_else(wanted)?;
        Ok(Self { index: Some(index), of })
    }
}

fn begin(text: &str) -> Result<SystemTime, String> {
    instant::from_text(text).ok_or_else(|| String::from("wanted a time such as 2026-01-31T12:00:00Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_counted_from_0() {
        let typed = |index, of| Ok(TypedShard { index, of });
        assert_eq!("0/1".parse(), typed(Some(0), 1));
        assert_eq!("3/4".parse(), typed(Some(3), 4));
        assert_eq!("auto/8".parse(), typed(None, 8));
        for text in ["", "1", "4/4", "0/0", "-1/4", "auto", "auto/0", "a/4", "1/", "0/100001", "1/4/8"] {
            let error = text.parse::<TypedShard>().unwrap_err();
            assert!(error.contains("0/4"), "{text}: {error}");
        }
    }
}
