//! Which shard this process is, and when it starts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::time::Instant;

use super::args::{ShardArgs, TypedShard};
use super::exit::Fatal;
use super::settings::usage;
use super::speech::{say, warn};
use crate::instant;
use crate::rate::Rate;
use crate::shard::Shard;

/// The variables that schedulers set for a task: its index from 0, and the number of tasks, if there is such a
/// variable. Sources: AWS Batch User Guide, "Array jobs"; Kubernetes, "Indexed Job for parallel processing with
/// static work assignment"; sbatch(1), whose indices are those requested; Cloud Run, "Jobs environment variables".
const SCHEDULERS: [(&str, Option<&str>); 4] = [
    ("AWS_BATCH_JOB_ARRAY_INDEX", Some("AWS_BATCH_JOB_ARRAY_SIZE")),
    ("JOB_COMPLETION_INDEX", None),
    ("SLURM_ARRAY_TASK_ID", Some("SLURM_ARRAY_TASK_COUNT")),
    ("CLOUD_RUN_TASK_INDEX", Some("CLOUD_RUN_TASK_COUNT")),
];

/// The variables by which schedulers count how often a task was started, and their value for the first time. Sources:
/// sbatch(1), output environment variables; AWS Batch User Guide, "Job environment variables"; Cloud Run, "Jobs
/// environment variables". Kubernetes has none.
const STARTS: [(&str, u64); 3] =
    [("SLURM_RESTART_COUNT", 0), ("AWS_BATCH_JOB_ATTEMPT", 1), ("CLOUD_RUN_TASK_ATTEMPT", 0)];

/// The requested part of a job, and when it starts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    pub(super) shard: Option<Shard>,
    pub(super) start_at: Option<SystemTime>,
}

impl Part {
    /// The part given by the arguments and the scheduler.
    pub(super) fn new(args: &ShardArgs) -> Result<Self, Fatal> {
        Ok(Self { start_at: args.start_at, ..Self::of(args.shard)? })
    }

    /// The part that was typed, of a job that begins at once.
    pub(super) fn of(typed: Option<TypedShard>) -> Result<Self, Fatal> {
        let shard = typed.map(|typed| resolve(typed, variable)).transpose()?;
        if let Some(shard) = shard {
            say(format_args!("shard {shard}: part {} of {}, counted from 0", shard.index, shard.of));
        }
        Ok(Self { shard, start_at: None })
    }

    /// The prefix of client ids, which differs between shards.
    pub(super) fn client_id_prefix(self, prefix: String) -> String {
        self.shard.map_or(prefix.clone(), |shard| format!("{prefix}-{}of{}", shard.index, shard.of))
    }

    /// The number of connections: as given, or this shard's part of a total.
    pub(super) fn connections(
        self,
        typed: Option<usize>,
        total: Option<u64>,
    ) -> Result<Option<usize>, Fatal> {
        let (Some(shard), Some(total)) = (self.shard, total) else { return Ok(typed) };
        match usize::try_from(shard.share(total)) {
            Ok(0) => Err(usage("--total-connections", format!("{total} leaves none for shard {shard}"))),
            Ok(share) => Ok(Some(share)),
            Err(_) => Err(usage("--total-connections", format!("{total} is more than there can be"))),
        }
    }

    /// The name of the shard's own file, beside that of the whole job: `lot.0-of-4.ledger`.
    pub(super) fn own_file(self, file: PathBuf) -> PathBuf {
        match self.shard {
            Some(Shard { index, of }) => with_mark(&file, &format!("{index}-of-{of}")),
            None => file,
        }
    }

    /// The name of the shard's own output, unless the name says already which shard it is of, or is stdout or a device.
    pub(super) fn own_output(self, file: PathBuf) -> PathBuf {
        let Some(Shard { index, of }) = self.shard else { return file };
        let says_so = file.to_string_lossy().contains(&format!("{index}-of-{of}"));
        if says_so || file == Path::new("-") || file.starts_with("/dev") { file } else { self.own_file(file) }
    }

    /// The scheduler's word that this task was started before; `None` if it says nothing of the kind.
    pub(super) fn restart(self) -> Option<String> {
        restart(variable).filter(|_| self.shard.is_some())
    }

    /// This shard's part of a rate.
    pub(super) fn rate(self, total: Rate) -> Option<Rate> {
        self.shard.map_or(Some(total), |shard| shard.rate(total))
    }

    /// When it starts, on the monotonic clock; `None` for at once. Says when that is, or how late it is already: to be
    /// called when everything else is ready.
    pub(super) fn begins_at(self) -> Option<Instant> {
        let at = self.start_at?;
        match at.duration_since(SystemTime::now()) {
            Ok(left) => {
                say(format_args!(
                    "waiting until {}, {:.1} s from now",
                    instant::to_text(at),
                    left.as_secs_f64()
                ));
                Some(Instant::now() + left)
            }
            Err(late) => {
                let late = late.duration().as_secs_f64();
                warn(format_args!("warning: {late:.1} s late: it was to begin at {}", instant::to_text(at)));
                None
            }
        }
    }
}

/// `file` with `mark` before its extension.
pub(super) fn with_mark(file: &Path, mark: &str) -> PathBuf {
    let mut name = file.file_stem().map_or_else(OsString::new, OsString::from);
    name.push(format!(".{mark}"));
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn restart(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    STARTS.into_iter().find_map(|(name, first)| {
        let count = variable(name)?;
        count.parse::<u64>().is_ok_and(|count| count > first).then(|| format!("{name} is {count}"))
    })
}

fn resolve(typed: TypedShard, variable: impl Fn(&str) -> Option<String>) -> Result<Shard, Fatal> {
    let TypedShard { index, of } = typed;
    if let Some(index) = index {
        return Ok(Shard { index, of });
    }
    let said: Vec<_> =
        SCHEDULERS.into_iter().filter_map(|(name, count)| Some((name, variable(name)?, count))).collect();
    let (name, index, count) = match &said[..] {
        [one] => one,
        [] => {
            let names = SCHEDULERS.map(|(name, _)| name).join(", ");
            return Err(usage(
                "--shard",
                format!("auto needs a scheduler's index, and none of {names} is set"),
            ));
        }
        [one, other, ..] => {
            let found = format!("auto is not clear: both {} and {} are set; give I/{of}", one.0, other.0);
            return Err(usage("--shard", found));
        }
    };
    let index = index.parse().ok().and_then(|index| Shard::new(index, of)).ok_or_else(|| {
        let wanted = format!("wanted 0 to {} for auto/{of}", of - 1);
        usage("--shard", format!("{name} is {index:?}; {wanted}; the tasks of the array count from 0"))
    })?;
    let tasks = count.and_then(|count| Some((count, variable(count)?.parse::<u32>().ok()?)));
    match tasks {
        Some((count, tasks)) if tasks > of => {
            Err(usage("--shard", format!("{count} is {tasks}: more tasks than the {of} shards of auto/{of}")))
        }
        // A repeated task is an array of its own.
        Some((count, tasks)) if tasks < of => {
            say(format_args!("note: {count} is {tasks}: the other shards of {of} are other jobs' affair"));
            Ok(index)
        }
        _ => Ok(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(of: u32, set: &[(&str, &str)]) -> Result<String, String> {
        let variable =
            |name: &str| set.iter().find(|(there, _)| *there == name).map(|(_, value)| (*value).to_owned());
        resolve(TypedShard { index: None, of }, variable)
            .map(|shard| shard.to_string())
            .map_err(|fatal| fatal.message)
    }

    #[test]
    fn each_scheduler_says_which_task_it_is() {
        assert_eq!(
            auto(4, &[("AWS_BATCH_JOB_ARRAY_INDEX", "3"), ("AWS_BATCH_JOB_ARRAY_SIZE", "4")]).as_deref(),
            Ok("3/4")
        );
        assert_eq!(auto(4, &[("JOB_COMPLETION_INDEX", "0")]).as_deref(), Ok("0/4"));
        assert_eq!(
            auto(2, &[("CLOUD_RUN_TASK_INDEX", "1"), ("CLOUD_RUN_TASK_COUNT", "2")]).as_deref(),
            Ok("1/2")
        );
        // A repeated task of an array keeps its index.
        assert_eq!(
            auto(4, &[("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "1")]).as_deref(),
            Ok("3/4")
        );
    }

    #[test]
    fn what_a_scheduler_cannot_mean_is_refused() {
        for (set, named) in [
            (&[][..], "none of"),
            (&[("SLURM_ARRAY_TASK_ID", "4")], "0 to 3"),
            (&[("SLURM_ARRAY_TASK_ID", "x")], "\"x\""),
            (&[("SLURM_ARRAY_TASK_ID", "1"), ("JOB_COMPLETION_INDEX", "1")], "not clear"),
            (&[("CLOUD_RUN_TASK_INDEX", "1"), ("CLOUD_RUN_TASK_COUNT", "8")], "more tasks"),
        ] {
            let refused = auto(4, set).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn a_task_that_was_started_before_is_known_by_its_scheduler() {
        let of =
            |name: &str, value: &str| restart(|asked| (asked == name).then(|| value.to_owned())).is_some();
        for (name, first, again) in [
            ("SLURM_RESTART_COUNT", "0", "1"),
            ("AWS_BATCH_JOB_ATTEMPT", "1", "2"),
            ("CLOUD_RUN_TASK_ATTEMPT", "0", "3"),
        ] {
            assert!(!of(name, first) && of(name, again) && !of(name, "x"), "{name}");
        }
    }

    #[test]
    fn a_shards_file_is_named_after_it() {
        let part = Part { shard: Some(Shard { index: 2, of: 8 }), start_at: None };
        assert_eq!(part.own_file("a/lot.ledger".into()), PathBuf::from("a/lot.2-of-8.ledger"));
        assert_eq!(Part::default().own_file("lot.ledger".into()), PathBuf::from("lot.ledger"));
        for (typed, own) in [
            ("a/run.jsonl", "a/run.2-of-8.jsonl"),
            ("2-of-8.jsonl", "2-of-8.jsonl"),
            ("-", "-"),
            ("/dev/stderr", "/dev/stderr"),
        ] {
            assert_eq!(part.own_output(typed.into()), PathBuf::from(own));
        }
        assert_eq!(part.client_id_prefix("fleetmint".into()), "fleetmint-2of8");
    }
}
