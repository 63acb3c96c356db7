"""The tracker of a study's run. Its folder names it, so that workers anywhere find it; no key and no result does."""

from collections.abc import Callable, Mapping
from pathlib import Path

from blindspot.files import write_text
from blindspot.studies.step import StepContext
from blindspot.training.tracker import Tracker

NAME = ".tracker"


def choose(run: Path, tracker: Tracker | None) -> None:
    """Say in a run folder where the steps that follow log besides their files."""
    if tracker is None:
        (run / NAME).unlink(missing_ok=True)
    else:
        write_text(run / NAME, tracker.library)


def tracker_of(context: StepContext) -> Tracker | None:
    """Where a step logs besides its files; all steps of a run side by side in its folder."""
    run = context.folder.parent.parent
    return Tracker((run / NAME).read_text(encoding="utf-8"), run) if (run / NAME).is_file() else None


def track_scores(context: StepContext, scores: Callable[[], Mapping[str, float]]) -> None:
    """Log what an evaluation measured, column by column, where the run has a tracker."""
    if tracker := tracker_of(context):
        tracked = tracker.begin(context.folder)
        tracked.write(1, scores())
        tracked.close()
