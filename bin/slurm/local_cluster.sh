#!/usr/bin/env bash
# A SLURM of one node on this machine, to try jobs, preemption and requeueing; everything of it lies in one folder.
#   bin/slurm/local_cluster.sh start DIR   # starts munged, slurmctld and slurmd, on loopback
#   export SLURM_CONF=DIR/slurm.conf       # then sbatch, squeue, scontrol
#   bin/slurm/local_cluster.sh stop DIR    # cancels all jobs and ends these three
# Needs root, and the packages slurm-wlm and munge (on Debian: apt install slurm-wlm munge).
# The partition `low` gives way to `high`: its jobs get their signal, and have GRACE seconds (60) to stop before they are
# requeued. A requeued job starts again after ten seconds, not two minutes as elsewhere.
set -euo pipefail

usage="usage: $(basename "$0") start|stop DIR"
action=${1:?$usage} state=$(realpath -m "${2:?$usage}")
export SLURM_CONF=$state/slurm.conf

running() { [ -s "$state/$1.pid" ] && kill -0 "$(cat "$state/$1.pid")" 2>/dev/null; }

await() {
    for _ in $(seq 400); do
        if eval "$1"; then return 0; fi
        sleep 0.1
    done
    echo "$(basename "$0"): $2; see the logs in $state" >&2
    return 1
}

stop() {
    if running slurmctld; then
        timeout 20 scancel --me || true
        await '[ -z "$(timeout 5 squeue --noheader)" ]' "the jobs do not end" || true
    fi
    for daemon in slurmd slurmctld munged; do
        if running $daemon; then
            kill "$(cat "$state/$daemon.pid")"
            await "! running $daemon" "$daemon does not end"
        fi
        rm -f "$state/$daemon.pid"
    done
}

start() {
    trap 'status=$?; if [ $status != 0 ]; then stop; fi' EXIT
    for program in munged slurmctld slurmd; do
        command -v $program >/dev/null || { echo "$program is missing: apt install slurm-wlm munge" >&2; exit 1; }
    done
    [ "$(id -u)" = 0 ] || { echo "SLURM's daemons are to be started as root" >&2; exit 1; }
    mkdir -p "$state"/{controller,node,munge}
    chmod 755 "$state"
    chmod 711 "$state/munge"  # all may reach the socket
    [ -s "$state/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom >"$state/munge/key")

    cat >"$SLURM_CONF" <<END
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${CONTROLLER_PORT:-16817}
SlurmdPort=${NODE_PORT:-16818}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge/socket,cred_expire=10
CredType=cred/munge
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/node
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=1,sched_interval=1,sched_min_interval=0
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=30
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=low Nodes=ALL Default=YES MaxTime=UNLIMITED PriorityTier=1 GraceTime=${GRACE:-60}
PartitionName=high Nodes=ALL MaxTime=UNLIMITED PriorityTier=2 PreemptMode=OFF
END

    running munged || munged --key-file="$state/munge/key" --socket="$state/munge/socket" \
        --pid-file="$state/munged.pid" --log-file="$state/munged.log" --seed-file="$state/munge/seed"
    running slurmctld || slurmctld >/dev/null </dev/null
    running slurmd || slurmd >/dev/null </dev/null
    await '[ "$(timeout 5 sinfo --noheader --format=%T --partition=low 2>/dev/null)" = idle ]' "the node does not come up"
    echo "export SLURM_CONF=$SLURM_CONF"
}

case $action in
start) start ;;
stop) stop ;;
*) echo "$usage" >&2; exit 2 ;;
esac
