"""transformers' ``Trainer``, the peer of training, with everything off that a timed run does not want."""

import tempfile
from collections.abc import Callable
from typing import Any


def run_trainer(model: Any, data: Any, collate: Callable[..., Any], told: Callable[[], None], **arguments: Any) -> None:
    """Train; ``told`` is called after every step.

    Args:
        model: of transformers.
        data: rows.
        collate: from rows to a batch.
        told: takes the time.
        arguments: of ``TrainingArguments``.
    """
    # Here, so that ours does not carry its memory.
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            told()

    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            optim="adamw_torch_fused",
            remove_unused_columns=False,
            dataloader_num_workers=0,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **arguments,
        )
        trainer = Trainer(model, settings, collate, data, callbacks=[Clock()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
