//! How fast to go: what was typed, the account's quotas, or AWS's defaults.
//!
//! Owns where each rate comes from, and says so. Limiting is the engine's.

use std::fmt;

use super::args::{Keys, ProvisionArgs, RateSource};
use super::exit::Fatal;
use super::target::{Site, asked};
use crate::control_plane::{AccountQuota, Quota, QuotaSource, account_quotas};
use crate::engine::Rates;
use crate::rate::{Rate, RateLimit};

/// The rates of a run and where they come from.
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
    /// It needs no explanation: typed, or on loopback.
    Given,
    /// AWS's default when this was written.
    AwsDefault,
    /// Service Quotas.
    Quota(Quota, QuotaSource),
}

impl ChosenRates {
    /// The rates without asking anyone: typed, or AWS's default quotas as of 2024 (AWS General Reference, "AWS IoT Core
    /// endpoints and quotas"); an account's own may differ. Nothing on loopback is AWS.
    pub(super) fn new(args: &ProvisionArgs, is_aws: bool) -> Self {
        let default = |per_second: f64| match is_aws {
            true => Chosen { limit: RateLimit::per_second(per_second), origin: Origin::AwsDefault },
            false => Chosen { limit: RateLimit::Unlimited, origin: Origin::Given },
        };
        let chosen = |typed: Option<RateLimit>, per_second: f64| match typed {
            Some(limit) => Chosen { limit, origin: Origin::Given },
            None => default(per_second),
        };
        Self {
            connect: chosen(args.connect_rate, 500.0),
            create: match args.keys.source {
                Keys::Aws => chosen(args.create_rate, 10.0),
                Keys::Local => chosen(args.create_rate, 20.0),
            },
            register: chosen(args.register_rate, 10.0),
        }
    }

    /// Puts the account's quotas where nothing was typed, if that was asked for.
    ///
    /// # Errors
    /// If Service Quotas does not say.
    pub(super) async fn ask_quotas(&mut self, args: &ProvisionArgs, site: &Site) -> Result<(), Fatal> {
        if args.rates != RateSource::Quotas {
            return Ok(());
        }
        let create = match args.keys.source {
            Keys::Aws => Quota::CreateKeysAndCertificate,
            Keys::Local => Quota::CreateCertificateFromCsr,
        };
        let wanted = [
            (args.connect_rate, Quota::Connect, &mut self.connect),
            (args.create_rate, create, &mut self.create),
            (args.register_rate, Quota::RegisterThing, &mut self.register),
        ];
        let (quotas, chosen): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .filter(|(typed, ..)| typed.is_none())
            .map(|(_, quota, chosen)| (quota, chosen))
            .unzip();
        let found = account_quotas(&site.service_quotas, &quotas).await.map_err(|error| {
            asked(
                &error,
                "--rates quotas needs servicequotas:GetServiceQuota, and servicequotas:GetAWSDefaultServiceQuota for \
                 quotas that the account has no value of its own of; allow them, or give the rates one by one",
                "check --region and --service-quotas-endpoint, or give the rates one by one",
            )
        })?;
        for (chosen, AccountQuota { quota, rate, source }) in chosen.into_iter().zip(found) {
            *chosen = Chosen { limit: RateLimit::Fixed(rate), origin: Origin::Quota(quota, source) };
        }
        Ok(())
    }

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

/// AWS discards what exceeds 100 publishes a second, in and out, on one connection, and does not raise it for anyone (AWS
/// General Reference). Nothing on loopback is AWS.
pub(super) fn publishes_per_connection(is_aws: bool) -> Option<Rate> {
    is_aws.then(|| Rate::per_second(100.0)).flatten()
}
