# %% [markdown]
# # A study in ten minutes
#
# The paper's eight arms in miniature, and what its `results.json` says. `SCALE=smoke` runs the same steps in seconds.

# %%
import json
import os
import subprocess
from pathlib import Path

scale = os.environ.get("SCALE", "full")
run = Path("runs") / ("miniature" if scale == "full" else f"miniature-{scale}")
subprocess.run(["blindspot", "study", "miniature", "--scale", scale], check=True)
results = json.loads((run / "results.json").read_text())

# %% [markdown]
# Scores, with intervals over questions. `counted` are the runs that learned the column: failing is an outcome of its
# own.

# %%
last = results["stages"][-1]
main = [row for row in results["scores"] if row["stage"] == last and row["split"] == "iid" and row["seed"] is None]
for row in main:
    if row["column"] == "cvbench_relation":
        shown = f"{row['score']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        print(f"{row['arm']:22} {shown}, {row['counted']} of {row['runs']} runs")

# %% [markdown]
# Differences hold the noise of training, and Holm's correction is over the whole table. Beside it, what a test that
# only looks at questions would have said.

# %%
rows = [row for row in results["differences"] if row["stage"] == last and row["split"] == "iid"]
rows = [row for row in rows if row["kind"] != "replicate"]
naive = sum((row["p_questions"] or 1) < 0.05 for row in rows)
print(f"of {len(rows)} differences {sum(row['significant'] for row in rows)} survive, {naive} by questions alone")
for row in rows:
    if row["significant"]:
        print(f"{row['label']}, {row['column']}: {row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})")

# %% [markdown]
# How much two trainings of one arm differ: without it none of these numbers means anything.

# %%
for row in results["noise"]:
    if row["stage"] == last and row["deviation"] is not None:
        print(f"{row['column']:22} {100 * row['deviation']:.1f} points between runs")
