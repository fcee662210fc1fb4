//! The rates of a run: as given, the account's quotas, or AWS's defaults.
//!
//! Owns where each rate comes from, and reports it. The engine does the limiting.

use std::fmt;

use super::args::{RateArgs, RateSource};
use super::exit::Fatal;
use super::question::answer;
use super::target::{Site, asked};
use crate::control_plane::{AccountQuota, QuotaSource, account_quotas};
use crate::engine::{KeySource, Rates};
use crate::rate::{Rate, RateLimit};
use crate::service::{PUBLISHES_PER_CONNECTION, Quota};
use crate::shard::Shard;

/// The rates of a run with their origins.
pub(super) struct ChosenRates {
    connect: Chosen,
    create: Chosen,
    register: Chosen,
}

#[derive(Clone, Copy)]
struct Chosen {
    limit: RateLimit,
    origin: Origin,
}

#[derive(Clone, Copy)]
enum Origin {
    /// Given by the user, or irrelevant on loopback: needs no explanation.
    Given,
    /// AWS's default when this was written.
    AwsDefault,
    /// Service Quotas.
    Quota(Quota, QuotaSource),
}

/// The rates that the arguments request, each with its quota.
pub(super) struct RateSettings {
    connect: Wanted,
    create: Wanted,
    register: Wanted,
    source: RateSource,
    /// The part of the account's limits, and of a total, that belongs to this process.
    shard: Option<Shard>,
}

struct Wanted {
    typed: Option<RateLimit>,
    quota: Quota,
}

impl RateSettings {
    /// The rates that the arguments request, for certificates with keys from `keys`.
    pub(super) fn new(args: &RateArgs, keys: KeySource, total: Option<Rate>, shard: Option<Shard>) -> Self {
        let part = |typed: Option<RateLimit>| typed.or(total.map(|total| Some(share(shard, total)).into()));
        let wanted = |typed, quota| Wanted { typed, quota };
        Self {
            connect: wanted(args.connect_rate, Quota::Connect),
            create: wanted(part(args.create_rate), keys.create_quota()),
            register: wanted(part(args.register_rate), Quota::RegisterThing),
            source: args.rates,
            shard,
        }
    }

    /// The rates for a target: as given, else the account's quotas if requested, else AWS's defaults. Nothing on
    /// loopback is AWS.
    ///
    /// # Errors
    /// If Service Quotas is to be queried, and the query fails.
    pub(super) async fn choose(&self, is_aws: bool, site: &Site) -> Result<ChosenRates, Fatal> {
        let default = |wanted: &Wanted| match wanted.typed {
            Some(limit) => Chosen { limit, origin: Origin::Given },
            None if is_aws => {
                Chosen { limit: self.part(Some(wanted.quota.aws_default())), origin: Origin::AwsDefault }
            }
            None => Chosen { limit: RateLimit::Unlimited, origin: Origin::Given },
        };
        let mut rates = [&self.connect, &self.create, &self.register].map(|wanted| (wanted, default(wanted)));
        if self.source == RateSource::Quotas {
            let open = || rates.iter().filter(|(wanted, _)| wanted.typed.is_none());
            let quotas: Vec<_> = open().map(|(wanted, _)| wanted.quota).collect();
            let found = answer("GetServiceQuota", account_quotas(&site.service_quotas(), &quotas)).await;
            let found = found.map_err(|error| {
                asked(
                    &error,
                    "--rates quotas needs servicequotas:GetServiceQuota, and servicequotas:GetAWSDefaultServiceQuota for \
                     quotas without an account-specific value; allow them, or give the rates one by one",
                    "check --region and --service-quotas-endpoint, or give the rates one by one",
                )
            })?;
            let open = rates.iter_mut().filter(|(wanted, _)| wanted.typed.is_none());
            for ((_, chosen), AccountQuota { quota, rate, source }) in open.zip(found) {
                *chosen = Chosen { limit: self.part(Some(rate)), origin: Origin::Quota(quota, source) };
            }
        }
        let [connect, create, register] = rates.map(|(_, chosen)| chosen);
        Ok(ChosenRates { connect, create, register })
    }

    /// This process's part of an account's limit.
    fn part(&self, limit: Option<Rate>) -> RateLimit {
        limit.map(|limit| share(self.shard, limit)).into()
    }
}

/// A shard's part of a rate; the whole rate without a shard.
fn share(shard: Option<Shard>, total: Rate) -> Rate {
    shard.and_then(|shard| shard.rate(total)).unwrap_or(total)
}

impl ChosenRates {
    /// The rates themselves.
    pub(super) fn rates(&self) -> Rates {
        Rates { connect: self.connect.limit, create: self.create.limit, register: self.register.limit }
    }
}

impl fmt::Display for ChosenRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connect {}, create {}, register {}", self.connect, self.create, self.register)
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(f)?;
        match self.origin {
            Origin::Given => Ok(()),
            Origin::AwsDefault => f.write_str(" (AWS's default as of 2024)"),
            Origin::Quota(quota, QuotaSource::Applied) => write!(f, " (applied quota {})", quota.code()),
            Origin::Quota(quota, QuotaSource::Default) => {
                write!(f, " (AWS's default of quota {}; the account has no value of its own)", quota.code())
            }
        }
    }
}

/// The limit of messages on one connection; `None` on loopback, which is not AWS.
pub(super) fn publishes_per_connection(is_aws: bool) -> Option<Rate> {
    is_aws.then_some(PUBLISHES_PER_CONNECTION)
}
