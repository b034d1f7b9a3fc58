#!/usr/bin/env bash
# Runs inside the machine of full_system.py, as a service: looks at the agent's unit and control groups, then switches the
# machine off. Lines go to the console; ASK wants a job from outside.
group=/sys/fs/cgroup/system.slice/edge-agent.service
fact() { echo "FACT $*"; }
property() { systemctl show -P "$1" edge-agent; }
as_agent() { runuser -u edge-agent -- env STATE_DIRECTORY=/var/lib/edge-agent edge-agent "$@"; }
newest_worker() { find "$group" -maxdepth 1 -name 'worker-*' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2; }

fact "kernel $(uname -r), $(systemctl --version | head -n 1)"
for _ in $(seq 300); do
    worker=$(newest_worker)
    [ -n "$worker" ] && [[ $(property StatusText) == serving\ digits* ]] && break
    sleep 2
done
worker=$(newest_worker)
fact "unit: $(property ActiveState), $(property StatusText)"
fact "processes in the unit's own group: $(wc -w <"$group/cgroup.procs"), in agent/: $(wc -w <"$group/agent/cgroup.procs"), in ${worker##*/}/: $(wc -w <"$worker/cgroup.procs")"
for file in memory.max memory.current memory.oom.group memory.swap.max pids.max pids.current cpu.weight; do
    fact "worker: $file = $(cat "$worker/$file" 2>&1)"
done
fact "unit: cpu.idle = $(cat "$group/cpu.idle"), memory.high = $(cat "$group/memory.high")"
as_agent doctor | sed 's/^/FACT doctor: /'
fact "$(systemd-analyze security --no-pager edge-agent.service | tail -n 1)"
daemon=$(property MainPID)
inside=(nsenter -t "$daemon" -m -- runuser -u edge-agent -- test -w)
fact "it may write into its own group: $("${inside[@]}" "$group/cgroup.procs" && echo yes || echo NO)," \
    "into the one above: $("${inside[@]}" "$group/../cgroup.procs" && echo YES || echo no)"
echo ASK
sleep 30
pid=$(head -n 1 "$worker/cgroup.procs")
fact "the memory of the worker's group is cut to far too little"
echo 4M >"$worker/memory.max"
for _ in $(seq 200); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 1
done
for _ in $(seq 200); do
    next=$(newest_worker)
    [ -n "$next" ] && [ "$next" != "$worker" ] && break
    sleep 1
done
fact "journal: $(journalctl -u edge-agent -o cat --no-pager | grep -i 'memory ran out' | tail -n 1)"
fact "the daemon lives: $([ "$(property MainPID)" = "$daemon" ] && echo yes || echo NO); the next worker: ${next##*/}"
echo ASK
sleep 30
journalctl -u edge-agent -o cat --no-pager | tail -n 15 | sed 's/^/LOG /'
echo END
systemctl poweroff --no-block
