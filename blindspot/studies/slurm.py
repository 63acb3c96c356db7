"""A batch script for Slurm: a Ray cluster on the nodes of a job, a study on it, and nothing left of it afterwards."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from blindspot.errors import UserError

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={job}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
{asked}
# Hand it over with: sbatch THIS_FILE. Stopped and handed over again, the study goes on where it was.
set -euo pipefail
cd -- {folder}
export PATH={programs}:$PATH RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN  # without which the job's cluster obeys nobody

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on=(srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_ON_NODE" --nodelist)
ip=$("${{on[@]}}" "${{hosts[0]}}" hostname --ip-address | tr ' ' '\n' | grep -m 1 -E '^[0-9]+([.][0-9]+){{3}}$')
port=$((20000 + SLURM_JOB_ID % 10000))

# Each `ray start --block` ends what it started when it is ended.
trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT
start=(ray start --block --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus={gpus})
"${{on[@]}}" "${{hosts[0]}}" "${{start[@]}}" --head --node-ip-address="$ip" --port="$port" --include-dashboard=false \
    --temp-dir="/tmp/ray-$SLURM_JOB_ID" > /dev/null &
until (: > "/dev/tcp/$ip/$port") 2> /dev/null; do
    kill -0 $! || {{ echo "Ray does not start on ${{hosts[0]}}" >&2; exit 1; }}
    sleep 1
done
for host in "${{hosts[@]:1}}"; do
    "${{on[@]}}" "$host" "${{start[@]}}" --address="$ip:$port" > /dev/null &
done

{command} --on ray --address "$ip:$port" --nodes {nodes}
"""


def slurm_script(name: str, options: Sequence[str], nodes: int, gpus: int, time: str | None) -> str:
    """The script for one study.

    Args:
        name: the study, as the user named it.
        options: the options of its command.
        nodes: how many.
        gpus: of each node.
        time: as ``sbatch --time`` takes it; None for what the cluster gives.
    """
    if time is not None and not re.fullmatch(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", time):
        raise UserError(f"--time {time}: should be as sbatch takes it: MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS")
    asked = [f"#SBATCH --gpus-per-node={gpus}"] * (gpus > 0) + [f"#SBATCH --time={time}"] * (time is not None)
    return SCRIPT.format(
        job=re.sub(r"[^\w.-]+", "_", f"blindspot-{Path(name).stem}"),
        nodes=nodes,
        gpus=gpus,
        asked="".join(f"{line}\n" for line in asked),
        folder=shlex.quote(str(Path.cwd())),
        programs=shlex.quote(str(Path(sys.executable).parent)),
        command=shlex.join(["blindspot", "study", name, *options]),
    )
