"""Answers of a miniature, whose pictures are tensors already."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from blindspot.model.tokenizer import IMAGE

LONGEST_ANSWER = 6
BATCH = 256
"""Questions at a time."""


class MiniatureAnswerer:
    """Greedy answers of a variant, in batches.

    Args:
        model: the variant, a Llava.
        tokenizer: its tokenizer, padding on the left.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], pixels_nkchw: Tensor) -> list[str]:
        """Raw answers, in the order of the prompts.

        Args:
            prompts: one question each.
            pixels_nkchw: the k normalised images of each question.
        """
        raw: list[str] = []
        for start in range(0, len(prompts), BATCH):
            raw += self._answer(prompts[start : start + BATCH], pixels_nkchw[start : start + BATCH])
        return raw

    def _answer(self, prompts: Sequence[str], pixels_nkchw: Tensor) -> list[str]:
        image = IMAGE * (self._model.config.image_seq_length * pixels_nkchw.shape[1])
        inputs = self._tokenizer([f"{image} {prompt}" for prompt in prompts], padding=True, return_tensors="pt")
        generated = self._model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=pixels_nkchw.flatten(0, 1),
            max_new_tokens=LONGEST_ANSWER,
            do_sample=False,
        )
        answers = generated[:, inputs["input_ids"].shape[1] :]
        return self._tokenizer.batch_decode(answers, skip_special_tokens=True)
