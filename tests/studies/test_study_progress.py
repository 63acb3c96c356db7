"""The time left and what is printed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.progress import duration
from blindspot.studies.schedule import critical_paths, makespan
from blindspot.studies.step import Step


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Step], dict[str, float]]:
    """Random steps, each with inputs among those before it, and seconds for those not done."""
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 8))):
        before = draw(st.sets(st.sampled_from(range(number)))) if number else set()
        inputs = {f"role{other}": str(other) for other in before}
        steps.append(Step(str(number), "kind", None, None, None, {}, inputs, 1.0, f"{number:064}"))
    seconds = {step.id: float(draw(st.integers(1, 9))) for step in steps if draw(st.booleans())}
    return steps, seconds


@given(graphs(), st.integers(1, 4))
def test_makespan_lies_between_its_bounds(graph: tuple[list[Step], dict[str, float]], workers: int) -> None:
    steps, seconds = graph
    total, longest = sum(seconds.values()), max(critical_paths(steps, seconds).values())
    span = makespan(steps, seconds, workers)
    assert max(total / workers, 0) - 1e-9 <= span <= total + 1e-9
    assert workers > 1 or span == pytest.approx(total)
    waits = {step.id: [source for source in step.inputs.values() if source in seconds] for step in steps}
    ends: dict[str, float] = {}
    for step in steps:
        if step.id in seconds:
            ends[step.id] = seconds[step.id] + max((ends[source] for source in waits[step.id]), default=0.0)
    assert span >= max(ends.values(), default=0.0) - 1e-9
    assert longest >= max(seconds.values(), default=0.0)


def test_longest_path_is_preferred() -> None:
    def step(name: str, *inputs: str) -> Step:
        return Step(name, "kind", None, None, None, {}, {source: source for source in inputs}, 1.0, name)

    steps = [step("short"), step("first"), step("second", "first")]
    seconds = {"short": 4.0, "first": 4.0, "second": 4.0}
    assert makespan(steps, seconds, workers=2) == 8.0
    assert critical_paths(steps, seconds) == {"short": 4.0, "first": 8.0, "second": 4.0}


def test_shipped_estimates_scale_with_the_work() -> None:
    study = load_study("miniature")

    def total(steps: int) -> float:
        instruct = study.instruct.model_copy(update={"steps": steps})
        return sum(step.estimate for step in plan_steps(study.model_copy(update={"instruct": instruct}), "code"))

    assert total(3000) > 2 * total(study.instruct.steps) > 2 * total(1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (7500, "2 h 05 min"), (-1, "0 s")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_terminal_each_step_is_one_plain_line(tmp_path: Path, run_toy: Callable[..., str]) -> None:
    printed = run_toy(tmp_path / "run")
    lines = printed.splitlines()
    steps = [line for line in lines if line.startswith("[")]
    assert len(steps) == 17
    assert not any(ord(character) < 32 for line in lines for character in line)
    (axial,) = [line for line in steps if "instruct" in line and "2D-RoPE" in line and "evaluate" not in line]
    for part in ("LLaVA-CLIP-2D-RoPE", "seed 0", "step 4/4", "loss 0.2500"):
        assert part in axial
    assert "all done" in steps[-1]
    plan = printed[: printed.index(steps[0])]
    assert "A toy study" in plan and "evaluate connector" in plan and "side by side" in plan


def test_a_terminal_shows_the_same_lines_above_the_live_ones(tmp_path: Path, run_toy: Callable[..., str]) -> None:
    printed = run_toy(tmp_path / "run", terminal=True)
    assert printed.count("/17]") == 17
    assert "17 of 17 steps done" in printed or "16 of 17 steps done" in printed
