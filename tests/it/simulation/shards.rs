//! Tasks of a job array in virtual time: they start late, die, are replaced, share a quota, and lose their disks with the
//! ledger on them. The keys sink is on another disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fleetmint::call::Call;
use fleetmint::emulator::account::{Account, CertificateStatus};
use fleetmint::emulator::memory::{Faults, Network, NetworkSettings, Observer, Power, Sighting};
use fleetmint::emulator::scenario::{BUILT_IN_TEMPLATE, Quota, Quotas, Scenario, TokenReuse};
use fleetmint::engine::{self, CommitMode, Connections, KeyPolicy, Plan, Rates, Stop};
use fleetmint::identity::{LotReader, ParameterPlan};
use fleetmint::ledger::{Binding, Content, Ledger, LostLedger, LotRows, Merged};
use fleetmint::provisioning::Topics;
use fleetmint::rate::{Rate, RateLimit};
use fleetmint::sealing::Sealer;
use fleetmint::shard::Shard;
use futures::future::join_all;
use rusqlite::Connection;

use super::checker::check_pair;
use super::dice::Dice;
use super::world::lot_text;

const TASKS: u32 = 4;
const DEVICES: u64 = 60;

#[test]
fn tasks_that_die_and_lose_their_disks_provision_a_lot_once() {
    let seeds = std::env::var("FLEETMINT_SIM_SHARD_SEEDS").map_or(8, |seeds| seeds.parse().unwrap());
    let lost: u32 = (0..seeds).map(play).sum();
    assert!(lost >= seeds as u32, "{lost} disks were lost in {seeds} seeds: too few to show anything");
}

/// Plays one seed; returns how many disks were lost.
fn play(seed: u64) -> u32 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let job = Job::new(seed);
        let serving = tokio::spawn(job.network.clone().serve());
        let lost = join_all((0..TASKS).map(|index| job.live(index, seed))).await.into_iter().sum();
        serving.abort();
        job.check(seed);
        lost
    })
}

struct Job {
    disks: tempfile::TempDir,
    network: Network,
    identity: age::x25519::Identity,
    parameters: ParameterPlan,
}

struct Blind;

impl Observer for Blind {
    fn see(&self, _: Duration, _: &Sighting<'_>) {}
}

impl Job {
    fn new(seed: u64) -> Self {
        let dice = &mut Dice::new(seed);
        let quota = || Rate::per_second(10.0).map(Quota::constant);
        let scenario = Scenario {
            token_reuse: dice.pick(&[TokenReuse::Reject, TokenReuse::Accept]),
            quotas: Quotas {
                create_keys_and_certificate: quota(),
                register_thing: quota(),
                ..Quotas::default()
            },
            ..Scenario::default()
        };
        let latency = (Duration::from_millis(1), Duration::from_millis(dice.pick(&[20, 300])));
        let network = Network::new(NetworkSettings {
            account: Account::new(&scenario).unwrap(),
            faults: Faults { latency, ..Faults::default() },
            seed,
            base: UNIX_EPOCH + Duration::from_secs(1_766_000_000),
            observer: Arc::new(Blind),
        });
        let text = lot_text(DEVICES);
        let shape = LotReader::new(text.as_bytes(), Some("DeviceId")).unwrap().shape().clone();
        let constants = [(String::from("CertificateId"), String::from("{certificate_id}"))];
        let parameters = ParameterPlan::new(&shape, &constants).unwrap();
        let disks = tempfile::tempdir().unwrap();
        std::fs::create_dir(disks.path().join("sink")).unwrap();
        Self { disks, network, identity: age::x25519::Identity::generate(), parameters }
    }

    fn ledger_of(&self, index: u32) -> PathBuf {
        let disk = self.disks.path().join(format!("disk-{index}"));
        std::fs::create_dir_all(&disk).unwrap();
        disk.join(format!("lot.{index}-of-{TASKS}.ledger"))
    }

    fn binding(&self, index: u32) -> Binding {
        let content = Content {
            key_source: String::from("aws"),
            recipients: [self.identity.to_public().to_string()].into(),
            ..Content::default()
        };
        Binding {
            template: BUILT_IN_TEMPLATE.to_owned(),
            region: String::from("us-east-1"),
            account: "simulation".into(),
            content: Some(content),
            shard: Shard::new(index, TASKS),
        }
    }

    /// The lives of one task, until its part is done. Returns how often it lost its disk.
    async fn live(&self, index: u32, seed: u64) -> u32 {
        let dice = &mut Dice::new(seed ^ u64::from(index + 1) << 32);
        let (lives, mut lost) = (dice.between(0, 4), 0);
        for life in 0.. {
            tokio::time::sleep(dice.up_to(Duration::from_secs(20))).await;
            let ledger = self.open(index);
            if ledger.view().counts().unwrap().open() == 0 {
                break;
            }
            assert!(life < lives + 4, "seed {seed}, task {index}: its part does not come to an end");
            let power = Power::default();
            let run = engine::run(self.plan(dice, &power), self.connector(&power), ledger, Stop::never(), ());
            if life >= lives {
                drop(run.await);
                continue;
            }
            let dies = tokio::time::sleep(dice.up_to(Duration::from_secs(4)));
            tokio::select! {
                outcome = run => drop(outcome),
                () = dies => power.off(),
            }
            // The dropped run's tasks are gone once the runtime has come round to each.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            if dice.chance(0.5) {
                std::fs::remove_dir_all(self.ledger_of(index).parent().unwrap()).unwrap();
                lost += 1;
            }
        }
        lost
    }

    /// Opens the task's ledger; the first time it is made, and made anew if its disk is lost.
    fn open(&self, index: u32) -> Ledger {
        let (path, sink, now) = (self.ledger_of(index), self.disks.path().join("sink"), self.network.now());
        let text = lot_text(DEVICES);
        let rows = || {
            let rows = LotReader::new(text.as_bytes(), Some("DeviceId")).unwrap();
            LotRows { source: "lot.csv", shape: rows.shape().clone(), rows }
        };
        let binding = self.binding(index);
        if !path.exists() && Ledger::refuse_claimed_sink(&path, &sink).is_err() {
            let lost = LostLedger::read(&path, &sink).unwrap();
            Ledger::restore(&path, &lost, rows(), |_| Ok(()), now).unwrap();
        }
        let mut ledger = Ledger::open_or_import(&path, &binding, rows(), |_| Ok(()), now).unwrap();
        ledger.keep_in_sink(&sink, now).unwrap();
        ledger
    }

    fn plan(&self, dice: &mut Dice, power: &Power) -> Plan {
        let network = self.network.clone();
        let sealer = Sealer::new(&[self.identity.to_public().to_string()]).unwrap();
        Plan {
            connections: Connections::Fixed(3),
            rates: Rates { create: RateLimit::Auto, register: RateLimit::Auto, ..Rates::UNLIMITED },
            parameters: self.parameters.clone(),
            keys: KeyPolicy { seal_to: Some(sealer), ..KeyPolicy::default() },
            settler: Some(Arc::new(self.network.settler(power.clone()))),
            commit_mode: CommitMode::Inline,
            clock: engine::Clock::new(move || network.now()),
            seed: dice.next(),
            ..Plan::default()
        }
    }

    fn connector(&self, power: &Power) -> fleetmint::emulator::memory::MemoryConnector {
        let calls = [Call::CreateKeysAndCertificate, Call::RegisterThing];
        self.network.connector(Topics::of(BUILT_IN_TEMPLATE, &calls), power.clone())
    }

    /// The merged ledger and the account, side by side: every device is one thing with one active certificate, whose key
    /// is there, and no other certificate is in use.
    fn check(&self, seed: u64) {
        let whole = self.disks.path().join("lot.ledger");
        let parts: Vec<_> = (0..TASKS).map(|index| self.ledger_of(index)).collect();
        let merged = Ledger::merge(&parts, &whole, self.network.now()).unwrap();
        assert_eq!(merged, Merged { shards: TASKS, devices: DEVICES }, "seed {seed}");
        let owned = self.owned(&whole);
        assert_eq!(owned.len() as u64, DEVICES, "seed {seed}: registered devices");
        self.network.with_account(|account| {
            let state = account.state();
            assert_eq!(state.things.len() as u64, DEVICES, "seed {seed}: things");
            for (name, thing) in &state.things {
                let principals: Vec<_> = thing.certificate_ids().map(|id| id.to_string()).collect();
                assert_eq!(principals, [owned[name].as_str()], "seed {seed}: {name}");
            }
            let active = |status| status == CertificateStatus::Active;
            let active = state.certificates.values().filter(|certificate| active(certificate.status)).count();
            assert_eq!(active as u64, DEVICES, "seed {seed}: active certificates");
        });
    }

    /// The certificate in use of each registered device, by its thing; each with its key.
    fn owned(&self, whole: &Path) -> BTreeMap<String, String> {
        let ledger = Connection::open(whole).unwrap();
        let sql = "SELECT thing_name, certificate_id, certificate_pem, private_key FROM device
                   JOIN certificate ON certificate.device = device.id AND retired_at IS NULL
                   WHERE state = 'registered'";
        let mut query = ledger.prepare(sql).unwrap();
        let rows = query.query_map([], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
        });
        let owned = rows.unwrap().map(Result::unwrap).map(|(thing, id, pem, sealed)| {
            let key = age::decrypt(&self.identity, sealed.as_bytes()).unwrap();
            check_pair(&id, &pem, &String::from_utf8(key).unwrap()).unwrap();
            (thing, id)
        });
        owned.collect()
    }
}
