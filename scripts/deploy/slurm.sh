#!/bin/bash
# Provisions a lot as an array of four tasks:  sbatch scripts/deploy/slurm.sh lot.csv TEMPLATE
#SBATCH --job-name=fleetmint
#SBATCH --array=0-3
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=256M
#SBATCH --requeue
#SBATCH --open-mode=append
# SIGTERM 40 s before the end: fleetmint finishes what is in flight.
#SBATCH --signal=B:TERM@40
set -u
lot=$1
template=$2
shift 2
shards=${FLEETMINT_SHARDS:-4}

fleetmint provision "$lot" --template "$template" --shard "auto/$shards" "$@" &
child=$!
trap 'kill -TERM $child' TERM
wait "$child"
code=$?
# A trap interrupts the first wait.
if [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null; then
  wait "$child"
  code=$?
fi
case $code in
  # In use by a task that still ends, or what time mends. Not 5: Slurm requeues by itself what it preempts, and what a user
  # cancels is to stay so.
  73 | 75) scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" ;;
esac
exit "$code"
