"""The step that diagnoses a trained arm: a file of its own, because no other step's key holds what it imports."""

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.run import diagnose as run
from blindspot.diagnostics.run import open_vlm
from blindspot.studies.step import StepContext

STIMULI = 128
"""Half of what ``blindspot diagnose`` shows by default, unless the step says otherwise: a study has many models."""


def diagnose(context: StepContext) -> None:
    """Run the study's diagnostics on the model of the instruct stage; one that is finished is not repeated."""
    config = context.step.config
    vlm = open_vlm(context.inputs["instruct"] / "model")
    budget = Budget(stimuli=config.get("stimuli", STIMULI), seed=config["seed"])

    def told(name: str, done: int, of: int) -> None:
        context.report(done, of, phase=name)

    run(vlm, config["diagnose"], budget, context.folder, told)
