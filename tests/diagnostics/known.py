"""Variants whose answers are known by construction, ready for diagnosis."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from blindspot.connectors import ConnectorSpec
from blindspot.diagnostics.base import Findings
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Changes, Site, attending
from blindspot.encoders import ENCODERS, TowerShape
from blindspot.evaluation.adapters import adapter_of
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import word_tokenizer, words_of
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.scenes.text import WORDS

WIDTH = 32


def random_subject(
    positions: EncoderPositions = EncoderPositions(),  # noqa: B008
    language_positions: LanguagePositions = LanguagePositions(),  # noqa: B008
    connector: ConnectorSpec = ConnectorSpec(),  # noqa: B008
    layers: int = 2,
    family: str = "siglip",
    spread: float = 0.2,
    seed: int = 0,
    words: Sequence[str] = WORDS,
) -> HookedVLM:
    """A variant of the miniature's form with random weights of a ``spread`` large enough for differences to show."""
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(words)
    known = words_of(tokenizer)
    tower = TowerShape(width=WIDTH, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
    language = LanguageShape(WIDTH, layers, 2, 64, 100.0, known.count).config(known.pad, known.begin, known.end)
    model: Any = build_variant(
        ENCODERS[family], tower, positions, language, known.image, "eager", language_positions, connector
    )
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim > 1:
            nn.init.normal_(parameter, std=spread)
    return HookedVLM(model.eval(), build_processor(model.config, tokenizer), adapter_of(model.config.model_type))


def rows(found: Findings, name: str, **labels: Any) -> list[dict[str, Any]]:
    """The rows of a table that have these labels."""
    [table] = [table for table in found.tables if table.name == name]
    return [dict(row) for row in table.rows if all(row[key] == value for key, value in labels.items())]


def sites(subject: HookedVLM) -> list[Site]:
    """All sites, in the order of the pipeline."""
    return [*subject.sites("encoder"), *subject.sites("language")]


def image_span(prepared: Prepared) -> slice:
    """Where the picture's tokens are; in every row at one place."""
    [(first, last)] = {(row.index(True), len(row) - row[::-1].index(True)) for row in prepared.image_bt.tolist()}
    assert prepared.image_bt[:, first:last].all()
    return slice(first, last)


def weights(subject: HookedVLM, prepared: Prepared, changes: Changes = Changes()) -> dict[int, torch.Tensor]:  # noqa: B008
    """Attention of every language-model layer, shape (batch, heads, tokens, tokens)."""
    seen: dict[int, torch.Tensor] = {}
    every_bt = torch.arange(prepared.image_bt.shape[1]).expand_as(prepared.image_bt)
    with attending(subject.roles.layers, every_bt, lambda layer, rows_bhtt, *_: seen.update({layer: rows_bhtt})):
        subject.run(prepared, changes=changes)
    return seen
