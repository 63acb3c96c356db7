# %% [markdown]
# # Look into a model
#
# Where is the place of an object, between pixels and answer, and what do answers follow? A model of the miniature
# serves, which `study.py` trains; any image-text model that `blindspot.load` opens does too.

# %%
import json
import os
import subprocess
from pathlib import Path

from datasets import load_dataset

import blindspot

scale = os.environ.get("SCALE", "full")
run = Path("runs") / ("miniature" if scale == "full" else f"miniature-{scale}")
path = min((run / "models").iterdir())
model, processor = blindspot.load(path)
print(path.name, f"{model.num_parameters():,} parameters")

# %% [markdown]
# Pictures drawn anew, with questions and true answers.

# %%
if not Path("scenes").exists():
    subprocess.run(["blindspot", "scenes", "scenes", "--n", "30", "--split", "test", "--seed", "5"], check=True)
for row in load_dataset("scenes", split="test").select(range(5)):
    (turn,) = row["questions"]
    print(turn["prompt"], "|", turn["answer"], "|", blindspot.ask(model, processor, row["image"], turn["prompt"]))

# %% [markdown]
# Two of the diagnoses: probes read places and relations at every stage; counterfactuals move one thing, the encoder's
# positions or the language model's ids, and count which of them the answers follow.

# %%
out = Path("runs/diagnosis")
command = ["blindspot", "diagnose", path, "--only", "probes,counterfactuals", "--out", out]
subprocess.run([*command, *(["--stimuli", "32"] if scale == "smoke" else [])], check=True)
for name in ("probes", "counterfactuals"):
    for table in json.loads((out / f"{name}.json").read_text())["tables"]:
        print(f"{name}: {table['title']}, {len(table['rows'])} rows, the first {table['rows'][0]}")
print("the page:", out / "index.html")
