//! Applies the account's quotas to connects, messages, filters and requests.
//!
//! Owns the account's rate counters and when each is consulted. How a client notices an excess is up to the caller.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::super::scenario::{Quota, Quotas, Refusal};
use super::rate_counter::{Counting, RateCounter};
use super::{Account, Answer, Route};

/// When there are this many client ids, those with idle counters are forgotten.
const CLIENT_IDS: usize = 1_000;

/// The account's counters. They are not kept over a restart: a second later they would make no difference.
#[derive(Debug)]
pub(super) struct Admission {
    quotas: Quotas,
    counting: Counting,
    create_keys: RateCounter,
    create_from_csr: RateCounter,
    register: RateCounter,
    connect: RateCounter,
    by_client_id: HashMap<String, RateCounter>,
    /// The number of client ids at which idle ones are next swept out.
    sweep_at: usize,
    publish: RateCounter,
    deliver: RateCounter,
    subscribe: RateCounter,
    control_plane: BTreeMap<&'static str, Operation>,
}

/// A control plane operation: its quota's counter, and the outcomes of its requests.
#[derive(Debug, Default)]
struct Operation {
    counter: RateCounter,
    counts: OperationCounts,
}

/// How often a control plane operation was requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct OperationCounts {
    /// Requests with a valid signature.
    pub requests: u64,
    /// Requests with a valid signature that exceeded the quota.
    pub throttled: u64,
}

impl Admission {
    pub(super) fn new(quotas: &Quotas) -> Self {
        Self {
            quotas: quotas.clone(),
            counting: Counting::of(quotas),
            create_keys: RateCounter::default(),
            create_from_csr: RateCounter::default(),
            register: RateCounter::default(),
            connect: RateCounter::default(),
            by_client_id: HashMap::new(),
            sweep_at: CLIENT_IDS,
            publish: RateCounter::default(),
            deliver: RateCounter::default(),
            subscribe: RateCounter::default(),
            control_plane: BTreeMap::new(),
        }
    }

    pub(super) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// The account's counter is asked second: a client id that connects too often takes nothing from the others.
    fn admit_connect(&mut self, age: Duration, client_id: Option<&str>) -> Result<(), Duration> {
        let counting = self.counting;
        if let (Some(quota), Some(client_id)) = (&self.quotas.connect_per_client_id, client_id) {
            if self.by_client_id.len() >= self.sweep_at {
                self.by_client_id.retain(|_, counter| !counter.is_idle(age, quota, counting));
                self.sweep_at = CLIENT_IDS.max(2 * self.by_client_id.len());
            }
            let counter = self.by_client_id.entry(client_id.to_owned()).or_default();
            if !counter.take(age, quota, counting) {
                return Err(counter.retry_at(age, quota, counting));
            }
        }
        match &self.quotas.connect {
            Some(quota) if !self.connect.take(age, quota, counting) => {
                Err(self.connect.retry_at(age, quota, counting))
            }
            _ => Ok(()),
        }
    }
}

/// Ages count from the start of the service.
impl Account {
    /// Whether the quotas admit this request at `age`. Call it before spending a key pair on the request.
    ///
    /// # Errors
    /// The rejection to send, 429, if the quotas do not admit it.
    pub fn admit(&mut self, age: Duration, route: &Route<'_>) -> Result<(), Answer> {
        let Admission { quotas, counting, create_keys, create_from_csr, register, .. } = &mut self.admission;
        let counters = &mut self.state.counters;
        let (counter, quota, throttled) = match route {
            Route::CreateKeys => {
                (create_keys, &quotas.create_keys_and_certificate, &mut counters.throttled_create_keys)
            }
            Route::CreateFromCsr => (
                create_from_csr,
                &quotas.create_certificate_from_csr,
                &mut counters.throttled_create_from_csr,
            ),
            Route::Register { .. } => (register, &quotas.register_thing, &mut counters.throttled_register),
            _ => return Ok(()),
        };
        if passes(counter, 1, age, quota.as_ref(), *counting) {
            return Ok(());
        }
        *throttled += 1;
        Err(self.refuse(Refusal::Throttled))
    }

    /// Whether the quotas admit a CONNECT with this client id. Without one, only the account's quota applies.
    ///
    /// # Errors
    /// The age at which to ask again, if the quotas do not admit it.
    pub fn admit_connect(&mut self, age: Duration, client_id: Option<&str>) -> Result<(), Duration> {
        self.admission.admit_connect(age, client_id)
    }

    /// Whether the account's quota admits a message from a client.
    pub fn admit_publish(&mut self, age: Duration) -> bool {
        let Admission { quotas, counting, publish, .. } = &mut self.admission;
        passes(publish, 1, age, quotas.publish.as_ref(), *counting)
    }

    /// Whether the account's quota admits a message to a client.
    pub fn admit_delivery(&mut self, age: Duration) -> bool {
        let Admission { quotas, counting, deliver, .. } = &mut self.admission;
        passes(deliver, 1, age, quotas.deliver.as_ref(), *counting)
    }

    /// Whether the quota of a control plane operation admits a request.
    pub fn admit_operation(&mut self, age: Duration, name: &'static str) -> bool {
        let Admission { quotas, counting, control_plane, .. } = &mut self.admission;
        let Operation { counter, counts } = control_plane.entry(name).or_default();
        let is_admitted = passes(counter, 1, age, quotas.control_plane.get(name), *counting);
        counts.requests += 1;
        counts.throttled += u64::from(!is_admitted);
        is_admitted
    }

    /// The counts of each control plane operation that was requested.
    pub fn operation_counts(&self) -> impl Iterator<Item = (&'static str, OperationCounts)> {
        self.admission.control_plane.iter().map(|(name, operation)| (*name, operation.counts))
    }

    /// Whether the account's quota admits a SUBSCRIBE with this many filters.
    pub fn admit_subscribe(&mut self, age: Duration, filters: usize) -> bool {
        let Admission { quotas, counting, subscribe, .. } = &mut self.admission;
        let filters = u32::try_from(filters).unwrap_or(u32::MAX);
        passes(subscribe, filters, age, quotas.subscribe.as_ref(), *counting)
    }
}

fn passes(
    counter: &mut RateCounter,
    count: u32,
    age: Duration,
    quota: Option<&Quota>,
    counting: Counting,
) -> bool {
    quota.is_none_or(|quota| counter.take_many(count, age, quota, counting))
}

#[cfg(test)]
mod tests {
    use super::super::super::scenario::Scenario;
    use super::*;

    fn account(quotas: &str) -> Account {
        Account::new(&Scenario::from_toml(&format!("[quotas]\n{quotas}")).unwrap()).unwrap()
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_id_that_comes_too_often_costs_the_others_nothing() {
        let mut account = account("connect = \"3/s\"\nconnect_per_client_id = \"1/s\"");
        assert_eq!(account.admit_connect(S, Some("a")), Ok(()));
        for _ in 0..10 {
            assert_eq!(account.admit_connect(S, Some("a")), Err(2 * S));
        }
        assert_eq!(account.admit_connect(S, Some("b")), Ok(()));
        assert_eq!(account.admit_connect(S, None), Ok(()));
        let retry_at = account.admit_connect(S, Some("c")).unwrap_err();
        assert!(retry_at > S && retry_at < 2 * S, "{retry_at:?}");
    }

    #[test]
    fn client_ids_of_long_ago_are_forgotten() {
        let mut account = account("connect_per_client_id = \"1/s\"");
        for n in 0..20_000_u32 {
            account.admit_connect(n * S / 100, Some(&n.to_string())).unwrap();
        }
        let known = account.admission.by_client_id.len();
        assert!(known <= 2 * CLIENT_IDS, "{known}");
    }

    #[test]
    fn operations_of_the_control_plane_have_a_quota_each_and_are_counted() {
        let mut account = account("control_plane = { DescribeThing = \"3/s\" }");
        let admitted = (0..5).filter(|_| account.admit_operation(S, "DescribeThing")).count();
        assert_eq!(admitted, 3);
        assert!((0..5).all(|_| account.admit_operation(S, "DeleteThing")));
        assert!(account.admit_operation(2 * S, "DescribeThing"));
        let counts = |requests, throttled| OperationCounts { requests, throttled };
        assert_eq!(
            account.operation_counts().collect::<Vec<_>>(),
            [("DeleteThing", counts(5, 0)), ("DescribeThing", counts(6, 2))]
        );
    }

    #[test]
    fn each_quota_counts_by_itself_and_filters_one_by_one() {
        let mut account = account("publish = \"5/s\"\ndeliver = \"6/s\"\nsubscribe = \"9/s\"");
        let count = |mut admit: Box<dyn FnMut(&mut Account) -> bool>, account: &mut Account| {
            (0..20).filter(|_| admit(account)).count()
        };
        assert_eq!(count(Box::new(|account| account.admit_publish(S)), &mut account), 5);
        assert_eq!(count(Box::new(|account| account.admit_delivery(S)), &mut account), 6);
        assert_eq!(count(Box::new(|account| account.admit_subscribe(S, 4)), &mut account), 2);
        assert!(account.admit_subscribe(S, 1));
    }
}
