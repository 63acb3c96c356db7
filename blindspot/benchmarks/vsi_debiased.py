"""VSI-Debiased: the questions of VSI-Bench that are left when those that words alone answer are pruned.

Groups and score as in `blindspot.benchmarks.vsi`.
"""

from dataclasses import replace

from blindspot.benchmarks.vsi import VSI

VSI_DEBIASED = replace(
    VSI,
    name="vsi_debiased",
    title="VSI-Debiased",
    citation="Brown et al., Benchmark Designers Should Train on the Test Set, 2025, arxiv.org/abs/2511.04655",
    sources=(
        replace(
            VSI.sources[0],
            counts={"questions": 2363},
            marks=("test_debiased.parquet", "*/test_debiased.parquet", "**/test_debiased*.parquet"),
            blind=None,
            page=VSI.sources[0].page.replace("test.jsonl", "test_debiased.parquet"),
        ),
    ),
    vlmevalkit="VSI-Bench-Debiased",
)
