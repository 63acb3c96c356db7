"""What shortcuts score on the tasks with depth, against the most they can: ``python perf/worlds.py [COUNT [TASK...]]``.

Rules are learned from other questions. Prints a table in Markdown; 10,000 questions of every task take about a quarter
of an hour on one core.
"""

import sys
from math import sqrt

from blindspot.benchmarks.solid import relative
from blindspot.scenes.solid import motion, registry, rules, tasks

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
LEARNED = 3000


def main() -> None:
    print(f"| task, cue | chance | rule | score of {COUNT:,} | at most |\n|---|---|---|---|---|")
    columns = {**registry.SOLID, **registry.MOTION}
    known = {**tasks.TASKS, **motion.TASKS}
    for task in (known[name] for name in sys.argv[2:] or known):
        for cue in columns[task.name].cues:
            asked = [one for own in rules.questions(task, COUNT, "perf", cue) for one in own]
            score = relative if task.kind == "number" else str.__eq__
            found = rules.shortcuts(task, asked, cue, LEARNED, score, cues=True)
            chance = columns[task.name].chance
            for rule, value in found.items():
                shortcut = rules.SHORTCUTS[task.name].get(rule)
                if shortcut and cue not in shortcut.seen:
                    continue
                bound = None if shortcut is None or cue != "shadow" else "the cue" if shortcut.cue else shortcut.bound
                high = isinstance(bound, float) and value > bound + 4 * sqrt(0.25 / len(asked))
                told = f"{bound:.3f}{' EXCEEDED' if high else ''}" if isinstance(bound, float) else bound or ""
                shown = "" if chance is None else f"{chance:.3f}"
                print(f"| `{task.name}` {cue} | {shown} | {rule} | {value:.3f} | {told} |", flush=True)


if __name__ == "__main__":
    main()
