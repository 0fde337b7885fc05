#!/bin/bash
# A real SLURM of one node on this machine (Debian, as root), to try what runs on a cluster.
#   launch/slurm/local_cluster.sh up      installs and starts it
#   launch/slurm/local_cluster.sh demo    a training of two tasks, and a sweep of six runs with one job killed midway
#   launch/slurm/local_cluster.sh down    stops it
set -euo pipefail

PYTHON="${PYTHON:-.venv/bin/python}"
WORKDIR="${WORKDIR:-runs/local_cluster}"

up() {
    # Services are started by hand below: there may be no systemd here.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    apt-get install -y -q --no-install-recommends slurm-wlm munge
    rm /usr/sbin/policy-rc.d
    local host cores memory
    host="$(hostname -s)"
    cores="$(nproc)"
    memory="$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)"
    mkdir -p /run/munge /var/log/munge /var/lib/munge /var/spool/slurmctld /var/spool/slurmd /var/log/slurm /etc/slurm
    chown munge /run/munge /var/log/munge /var/lib/munge /etc/munge
    cat > /etc/slurm/slurm.conf <<CONF
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    pgrep -x munged > /dev/null || runuser -u munge -- munged
    pgrep -x slurmctld > /dev/null || slurmctld
    pgrep -x slurmd > /dev/null || slurmd
    for _ in $(seq 30); do
        if [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ]; then
            sinfo
            return
        fi
        sleep 1
    done
    echo "SLURM did not become idle: see /var/log/slurm" >&2
    return 1
}

down() {
    pkill -x slurmd || true
    pkill -x slurmctld || true
    pkill -x munged || true
}

demo() {
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
    *) sed -n 's/^# \{0,1\}//p' "$0" | head -n 5 >&2; exit 2 ;;
esac
