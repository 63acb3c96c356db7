"""The time left and what is printed."""

from collections.abc import Callable
from pathlib import Path

from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.progress import critical_paths, time_left
from blindspot.studies.step import Step


def test_time_left_is_that_of_the_longest_chain_or_of_all_workers() -> None:
    def step(name: str, *inputs: str) -> Step:
        return Step(name, "kind", None, None, None, {}, {source: source for source in inputs}, 1.0, name)

    steps = [step("short"), step("first"), step("second", "first")]
    seconds = {"short": 4.0, "first": 4.0, "second": 4.0}
    assert critical_paths(steps, seconds) == {"short": 4.0, "first": 8.0, "second": 4.0}
    assert [time_left(steps, seconds, workers) for workers in (1, 2, 3)] == [12.0, 8.0, 8.0]
    assert time_left(steps, {"short": 1.0}, 2) == 1.0, "the others are done"


def test_shipped_estimates_scale_with_the_work() -> None:
    study = load_study("miniature")

    def total(steps: int) -> float:
        instruct = study.instruct.model_copy(update={"steps": steps})
        return sum(step.estimate for step in plan_steps(study.model_copy(update={"instruct": instruct}), "code"))

    assert total(3000) > 2 * total(study.instruct.steps) > 2 * total(1)


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
