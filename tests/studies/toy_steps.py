"""Step functions that finish at once, for tests of the engine. Environment variables make them slow or broken.

TOY_SLEEP: seconds per iteration. TOY_TRACE: file that gets a line "id first-iteration" when a step starts.
TOY_BREAK: "<step id prefix>=<what>" with what in user, bug, full, kill, memory, hang.
"""

import errno
import json
import os
import random
import signal
import time
from pathlib import Path

from blindspot.errors import UserError
from blindspot.files import sha256_file, write_json, write_text
from blindspot.studies.step import StepContext

ITERATIONS = 4


def work(context: StepContext) -> None:
    """A hash chain over config and inputs that checkpoints after every iteration."""
    checkpoint = context.folder / "checkpoint.json"
    state = {"iteration": 0, "value": 0, "random": random.random()}
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())
    if trace := os.environ.get("TOY_TRACE"):
        with Path(trace).open("a") as lines:
            lines.write(f"{context.step.id} {state['iteration']}\n")
    while state["iteration"] < ITERATIONS:
        state = {**state, "iteration": state["iteration"] + 1, "value": state["value"] * 31 % 1009 + 1}
        write_json(checkpoint, state)
        write_text(context.folder / "log.jsonl", "{}\n")
        context.report(state["iteration"], ITERATIONS, 1 / state["iteration"], "toy")
        _maybe_break(context)
        time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    made_from = {role: sha256_file(folder / "nested" / "result.json") for role, folder in context.inputs.items()}
    salt = os.environ.get("TOY_SALT", "")
    write_json(context.folder / "nested" / "result.json", [context.step.config, made_from, state, salt])
    if context.step.kind in ("connector", "instruct") and context.step.config.get("recipe") == "llava":
        write_text(context.folder / "model" / "model.safetensors", f"weights of {context.step.id}")
    checkpoint.unlink()


def _maybe_break(context: StepContext) -> None:
    where, _, what = os.environ.get("TOY_BREAK", "").partition("=")
    if not where or not context.step.id.startswith(where):
        return
    match what:
        case "user":
            raise UserError("the data is crooked; straighten it")
        case "bug":
            raise ZeroDivisionError("toy\nbug")
        case "full":
            raise OSError(errno.ENOSPC, "No space left on device", str(context.folder / "weights"))
        case "memory":
            raise MemoryError
        case "hang":
            time.sleep(120)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)


def notice(context: StepContext) -> None:
    """Says which process it was, and what it was given; on several ranks one of them may be broken."""
    rank = os.environ.get("RANK", "")
    context.report(1, 1)
    if context.step.config.get("breaks") == rank:
        _maybe_break(context)
    told = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "WORLD_SIZE")}
    write_json(context.folder / f"notice{rank}.json", {**told, "pid": os.getpid(), "began": time.time()})
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))


def together(context: StepContext) -> None:
    """Counts with all ranks in turn; the first checkpoints after every count and notes who was on which GPU when."""
    from blindspot.rendezvous import join_ranks

    checkpoint, trace = context.folder / "checkpoint.json", Path(os.environ["TOY_TRACE"])
    local = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[int(os.environ.get("LOCAL_RANK", "0"))]
    gpu = f"{os.environ['RAY_RAYLET_PID']}/{local}"  # a node's own process
    with join_ranks() as ranks, trace.open("a") as lines:
        counts = ranks.first_does(lambda: json.loads(checkpoint.read_text()) if checkpoint.exists() else [])
        while len(counts) < ITERATIONS:
            began = time.time()
            time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
            if context.step.config.get("breaks") == ranks.rank:
                _maybe_break(context)
            if ranks.first_does(lambda: True):  # all have slept
                lines.write(f"{context.step.id} {len(counts)} {gpu} {began} {time.time()}\n")
                lines.flush()
            counts.append(ranks.gather(ranks.rank + len(counts)))
            ranks.first_does(lambda: write_json(checkpoint, counts))
            context.report(len(counts), ITERATIONS)
        ranks.first_does(lambda: write_json(context.folder / "counts.json", counts))
        ranks.first_does(lambda: checkpoint.unlink(missing_ok=True))


STEPS = dict.fromkeys(["data", "text", "encoder", "connector", "instruct", "evaluate"], work)
STEPS |= {"notice": notice, "together": together}
