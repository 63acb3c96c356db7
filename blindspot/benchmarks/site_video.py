"""SITE-Bench, its questions about videos; groups, options and score as in `blindspot.benchmarks.site_image`.

The frames are pictures here, `FRAMES` of them at even steps. EASI adds up pictures and videos: the sums of both.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blindspot.benchmarks.base import Source
from blindspot.benchmarks.rules import LATER, LMMS_EVAL, OFFICIAL
from blindspot.benchmarks.site_image import SITE_IMAGE, question
from blindspot.benchmarks.sources.forms import read_rows
from blindspot.benchmarks.sources.video import with_frames
from blindspot.benchmarks.words import best_answer

FRAMES = 32
_LEAD = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "of the correct option.\n"
)


def _video(row: Mapping[str, Any]) -> str:
    shown = row.get("visual")
    return str(shown[0] if isinstance(shown, list) and shown else shown)


SITE_VIDEO = replace(
    SITE_IMAGE,
    name="site_video",
    title="SITE-Bench videos",
    sources=(
        Source(
            "original",
            lambda paths: with_frames(paths[0], read_rows(paths[0]), _video, FRAMES),
            question,
            "franky-veteran/SITE-Bench",
            marks=("video_test.json", "video_test.jsonl", "**/video_test.json"),
            page="unpack the videos of huggingface.co/datasets/franky-veteran/SITE-Bench beside it",
        ),
    ),
    vlmevalkit="SiteBenchVideo",
    prompts=dict.fromkeys((OFFICIAL, LATER, LMMS_EVAL), lambda question: _LEAD + best_answer(question)),
)
