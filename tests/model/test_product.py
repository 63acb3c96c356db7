"""Any encoder with any positions at either site and any connector: what is saved is what was trained.

A pairwise covering set: every two values of the four axes meet in some variant, unless they are refused together.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from blindspot.connectors import ConnectorSpec
from blindspot.encoders import ENCODERS, TowerShape
from blindspot.errors import UserError
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.variant import save
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.positions.encoder import SCHEMES as ENCODER_SCHEMES
from blindspot.positions.language import SCHEMES as LANGUAGE_SCHEMES

ROOT = Path(__file__).parents[2]
TOWER = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
IMAGE, WORDS = 49, 5
CONNECTORS = (
    "mlp",
    "linear",
    "average_pooling",
    "attention_pooling",
    "c_abstractor",
    "qformer",
    "resampler",
    "gated_cross_attention",
)
AXES = (tuple(ENCODERS), tuple(ENCODER_SCHEMES), tuple(LANGUAGE_SCHEMES), CONNECTORS)

OTHER_PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from blindspot.model.variant import BlindspotForConditionalGeneration
for folder in sorted(Path(sys.argv[1]).iterdir()):
    dtype = torch.bfloat16 if folder.name.endswith("bf16") else torch.float32
    model = BlindspotForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    saved = torch.load(folder / "expected.pt")
    with torch.no_grad():
        images = model.model.get_image_features(**saved["images"])
        logits = model(**saved["images"], input_ids=saved["input_ids"]).logits
    same = [torch.equal(mine, theirs) for mine, theirs in zip(images.pooler_output, saved["features"], strict=True)]
    if not (all(same) and torch.equal(logits, saved["logits"])):
        print(folder.name)
"""


class Point(NamedTuple):
    """A variant in the space of the four axes."""

    family: str
    encoder: str
    language: str
    connector: str

    def build(self, dtype: torch.dtype = torch.float32) -> Any:
        """With weights large enough that no part hides behind the others."""
        torch.manual_seed(0)
        table = "keep" if self.encoder == "learned" else "replace"
        model = build_variant(
            ENCODERS[self.family],
            TOWER,
            EncoderPositions(self.encoder, table=table),
            LanguageShape(32, 2, 2, 64, 100.0, IMAGE + 1).config(0, 1, 2),
            IMAGE,
            language_positions=LanguagePositions(self.language),
            connector=ConnectorSpec(self.connector),
        )
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and (parameter.ndim > 1 or "gate" in name):
                nn.init.normal_(parameter, std=0.2)
        return model.to(dtype).eval()

    def images(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Two images; of a family that keeps aspect ratios, of different shapes."""
        generator = torch.Generator().manual_seed(1)
        if not ENCODERS[self.family].variable_resolution:
            return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator).to(dtype)}
        shapes = torch.tensor([[2, 4], [4, 4]])
        return {"pixel_values": torch.randn(2, 16, 192, generator=generator).to(dtype), "spatial_shapes": shapes}

    def ids(self, model: Any) -> Tensor:
        """Both images and some words in one row."""
        with torch.no_grad():
            tokens = [len(one) for one in model.model.get_image_features(**self.images(model.dtype)).pooler_output]
        places = [1, 1] if model.model.gated else tokens
        words = torch.arange(3, 3 + WORDS)
        one, other = ([IMAGE] * count for count in places)
        return torch.tensor([[1, *one, *words.tolist(), *other, *words.tolist()]])


def possible(point: Point) -> bool:
    """What is left out is refused, see `test_what_cannot_be_is_refused_with_the_reason`."""
    unordered = point.connector in ("qformer", "resampler", "gated_cross_attention")
    without_table = ENCODERS[point.family].table != "learned"
    return not (unordered and LANGUAGE_SCHEMES[point.language].needs_grid) and not (
        without_table and point.encoder == "sincos"
    )


def covering() -> Iterator[Point]:
    """Greedy: each next point holds the most pairs that no point before it held."""
    axes = list(combinations(range(len(AXES)), 2))
    missing = {(one, other, a, b) for one, other in axes for a, b in product(AXES[one], AXES[other])}
    points = [point for point in (Point(*values) for values in product(*AXES)) if possible(point)]

    def held(point: Point) -> set[tuple[int, int, str, str]]:
        return {(one, other, point[one], point[other]) for one, other in axes}

    while points:
        best = max(points, key=lambda point: len(held(point) & missing))
        if not held(best) & missing:
            return
        missing -= held(best)
        yield best
        points = [point for point in points if held(point) & missing]


POINTS = list(covering())
built = cache(Point.build)
points = pytest.mark.parametrize("point", POINTS, ids="-".join)


def test_another_process_gets_the_same_bits(tmp_path: Path) -> None:
    for dtype, point in (*product([torch.float32], POINTS[::3]), *product([torch.bfloat16], POINTS[::9])):
        folder = tmp_path / f"{'-'.join(point)}-{'bf16' if dtype == torch.bfloat16 else 'fp32'}"
        model, images = built(point, dtype), point.images(dtype)
        ids_bl = point.ids(model)
        with torch.no_grad():
            expected = {
                "images": images,
                "input_ids": ids_bl,
                "features": model.model.get_image_features(**images).pooler_output,
                "logits": model(**images, input_ids=ids_bl).logits,
            }
        save(model, folder)
        torch.save(expected, folder / "expected.pt")
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout == ""


@points
def test_decoding_with_a_cache_and_behind_padding_is_the_whole_forward_pass(point: Point) -> None:
    model, images = built(point, torch.float32), point.images()
    ids_bl = point.ids(model)
    with torch.no_grad():
        whole = model(**images, input_ids=ids_bl).logits
        prefilled = model(**images, input_ids=ids_bl[:, :-2], use_cache=True)
        cache = prefilled.past_key_values
        for place in (-2, -1):
            step = model(input_ids=ids_bl[:, [place]], past_key_values=cache, use_cache=True)
            torch.testing.assert_close(step.logits[:, -1], whole[:, place], rtol=1e-3, atol=1e-4)
        padded_bl = torch.cat([torch.zeros_like(ids_bl[:, :3]), ids_bl], dim=1)
        positions_bl = (torch.arange(padded_bl.shape[1]) - 3).clamp(min=0)[None]
        behind = model(
            **images, input_ids=padded_bl, attention_mask=(padded_bl != 0).long(), position_ids=positions_bl
        ).logits
    torch.testing.assert_close(behind[:, 3:], whole, rtol=1e-3, atol=1e-4)


@points
def test_every_part_that_trains_gets_a_gradient(point: Point) -> None:
    model, images = built(point, torch.float32).train(), point.images()
    ids_bl = point.ids(model)
    model(**images, input_ids=ids_bl, labels=ids_bl, use_cache=False).loss.backward()
    parts: dict[str, nn.Module] = {
        "tower": model.model.vision_tower.get_submodule(ENCODERS[point.family].blocks),
        "connector": model.model.multi_modal_projector,
        "language model": model.model.language_model,
    }
    for name, part in parts.items():
        assert any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in part.parameters()), name
    model.eval().zero_grad()


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (Point("clip", "learned", "mrope", "qformer"), "unordered queries"),
        (Point("clip", "learned", "row_break", "resampler"), "unordered queries"),
        (Point("dinov3", "sincos", "rope1d", "mlp"), "has none"),
        (Point("aimv2_native", "sincos", "rope1d", "mlp"), "has none"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(point: Point, reason: str) -> None:
    assert not possible(point)
    with pytest.raises(UserError, match=reason):
        point.build()
