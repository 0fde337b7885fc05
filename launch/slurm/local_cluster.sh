#!/usr/bin/env bash
# A real SLURM of one node on this machine (Debian, as root), to try what runs on a cluster.
#   launch/slurm/local_cluster.sh up      installs slurm-wlm and munge if they are missing, starts them
#   launch/slurm/local_cluster.sh demo    a training of two tasks, and a sweep of six runs with one job killed midway
#   launch/slurm/local_cluster.sh down    stops what `up` started, and nothing else
# It has ports and a folder of its own (PRIVSYN_SLURM_DIR), so another SLURM on this machine is left alone. To use it by
# hand: export SLURM_CONF=/var/tmp/privsyn-slurm/slurm.conf

set -euo pipefail

STATE=${PRIVSYN_SLURM_DIR:-/var/tmp/privsyn-slurm}
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
WORKDIR=${WORKDIR:-runs/local_cluster}
export SLURM_CONF=$STATE/slurm.conf
cd "$ROOT"

fail() {
  echo "error: $*" >&2
  exit 1
}

install_packages() {
  if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null; then return; fi
  command -v apt-get >/dev/null || fail "slurm-wlm and munge are not installed, and this is no Debian: install them"
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then # keeps the packages from starting services of their own
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made=yes
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
  if [ -n "$made" ]; then rm "$policy"; fi
}

start_munge() {
  if munge -n >/dev/null 2>&1; then return; fi
  mkdir -p /run/munge /var/log/munge /var/lib/munge
  chown munge: /run/munge /var/log/munge /var/lib/munge /etc/munge
  runuser -u munge -- munged
  touch "$STATE/started_munge"
}

write_config() {
  local host
  host=$(hostname -s)
  cat >"$SLURM_CONF" <<CONF
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$STATE/controller
SlurmdSpoolDir=$STATE/node
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 500)) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

is_running() { # by the file that holds its process id
  [ -s "$STATE/$1.pid" ] && kill -0 "$(cat "$STATE/$1.pid")" 2>/dev/null
}

up() {
  [ "$(id -u)" = 0 ] || fail "SLURM's daemons need root here: run this as root, in a container for instance"
  install_packages
  mkdir -p "$STATE/controller" "$STATE/node"
  start_munge
  write_config
  is_running slurmctld || slurmctld
  is_running slurmd || slurmd
  for _ in $(seq 60); do
    if [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; then
      echo "one node is idle; to use it by hand: export SLURM_CONF=$SLURM_CONF"
      return
    fi
    sleep 0.5
  done
  fail "the node did not come up: see $STATE/slurmctld.log and $STATE/slurmd.log"
}

down() {
  for name in slurmd slurmctld; do
    if is_running "$name"; then kill "$(cat "$STATE/$name.pid")"; fi
  done
  if [ -e "$STATE/started_munge" ]; then
    kill "$(cat /run/munge/munged.pid)"
    rm "$STATE/started_munge"
  fi
  echo "SLURM is stopped"
}

demo() {
  [ -e "$SLURM_CONF" ] || fail "there is no cluster: $0 up comes first"
  rm -rf "$WORKDIR"
  training
  sweep
  echo "both parts passed"
}

# One run by two tasks: two devices of two processes share every step.
training() {
  local run="$WORKDIR/training"
  srun --ntasks=2 "$PYTHON" -m launch.run --config=configs/quickstart.py:smoke --workdir="$run"
  "$PYTHON" - "$run" <<'CHECK'
import json, pathlib, sys
report = json.loads((pathlib.Path(sys.argv[1]) / "release" / "privacy_report.json").read_text())
steps = sum(entry["event"]["count"] for entry in report["ledger"] if entry["name"] == "training")
assert steps == 20 and 0.995 <= report["epsilon"] <= 1, (steps, report["epsilon"])
print(f"training by two tasks: {steps} steps charged once, epsilon {report['epsilon']:.4f}")
CHECK
}

# Six runs as an array of jobs, the first of which to train is killed: its run is submitted again, and no other.
sweep() {
  local study="$WORKDIR/sweep" log="$WORKDIR/sweep.log" victim=""
  "$PYTHON" -m launch.study --config=configs/studies/smoke.py --workdir="$study" --executor=slurm --workers=2 \
    > "$log" 2>&1 &
  local launched=$!
  for _ in $(seq 600); do
    # A job that has saved a state is training.
    if compgen -G "$study/private/unfinished/*/*/checkpoints/states/[0-9]*" > /dev/null; then
      victim="$(squeue --noheader --array --states=RUNNING --format=%i | head -n 1)"
      [ -n "$victim" ] && break
    fi
    sleep 0.2
  done
  [ -n "$victim" ] || { echo "no job was seen training: see $log" >&2; kill "$launched"; return 1; }
  echo "killing job $victim"
  scancel --signal=KILL --full "$victim"
  wait "$launched" || { cat "$log" >&2; return 1; }
  grep "submitted again" "$log"
  [ "$(grep -c "submitted again" "$log")" = 1 ] || { echo "another number of runs was submitted again" >&2; return 1; }
  "$PYTHON" - "$study" <<'CHECK'
import pathlib, sys
import pandas as pd
private = pathlib.Path(sys.argv[1]) / "private"
rows = pd.read_csv(private / "results.csv", comment="#")
assert len(rows) == 6 and rows["run"].nunique() == 6, rows
assert rows["epsilon_spent"].between(0.97, 1).all(), rows["epsilon_spent"]
resumed = [path.name for path in (private / "jobs").rglob("*_log.err") if "going on from step" in path.read_text()]
print(f"sweep: 6 of 6 results, epsilon at most {rows['epsilon_spent'].max():.4f}; went on from a checkpoint: {resumed}")
CHECK
}

case "${1:-}" in
  up | demo | down) "$1" ;;
  *) sed -n 's/^# \{0,1\}//p' "$0" | sed -n 2,7p >&2; exit 2 ;;
esac
