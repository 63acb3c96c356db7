# %% [markdown]
# # Weigh a published table
#
# Which differences of a printed table exceed its own sample of questions? Nothing but the table is needed. These rows
# are of the paper that Blindspot implements: LLaVA-1.5 with four encoders, without and with 2D-RoPE.

# %%
from collections import Counter
from pathlib import Path

from blindspot.evaluation.published import audit_table

table = Path("table.csv")
table.write_text("""\
,MMVP,GQA,VSR
CLIP,0.577,33.225,55.810
CLIP with 2D-RoPE,0.513,34.433,57.201
SigLIP,0.433,25.648,54.910
SigLIP with 2D-RoPE,0.507,38.448,57.692
AIMv2,0.513,32.541,56.219
AIMv2 with 2D-RoPE,0.560,32.342,60.311
n,300,12578,1222
""")

# %% [markdown]
# Benchmarks that are known bring their clusters along: GQA asks 31.6 questions of each picture.

# %%
found = audit_table(table, {}, baseline="CLIP")
for column in found["columns"]:
    print(f"{column['name']}: {column['n']:,} questions, {column['design']:.3g} of which count as one at the worst")

# %% [markdown]
# Every model against CLIP, after Holm over everything. `open` means that only the answers could tell, because the two
# models may be right on the same questions or on others.

# %%
print(Counter(row["verdict"] for row in found["differences"]))
for row in found["differences"]:
    print(f"{row['a']:20} {row['column']:5} {row['difference']:+.3f}  {found['verdicts'][row['verdict']]}")
for note in found["notes"]:
    print("Note:", note)
