"""Encoder and prefill of a variant against plain transformers, both in this run, on the same weights and inputs.

    python perf/model.py            under 3 minutes on two idle cores; --json for a JSON object, --help for the rest

Random weights at the size of CLIP ViT-B/16 @ 224 (12 blocks, width 768) and of a small Llama (8 blocks, width 768).
The peer is ``LlavaForConditionalGeneration`` of the same config with the same tensors: its encoder row is its
``get_image_features`` and its prefill row a forward pass over an image and 64 words. Sides alternate call by call, so
that a busy machine slows both; a row is the median of the ratios of neighbouring calls. Features are read at the block
before the last, as LLaVA does. Where ours computes the same function, outputs are compared before anything is timed.
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.config import llava_config
from blindspot.positions import EncoderPositions, LanguagePositions

TOWER = TowerShape(width=768, layers=12, heads=12, mlp_width=3072, image_size=224, patch_size=16)
LANGUAGE = LanguageShape(width=768, layers=8, heads=12, mlp_width=2048, rotary_base=1e4, vocabulary=32000)
IMAGE, WORDS = 31999, 64

VARIANTS = {
    "everything as Llava": (EncoderPositions(), LanguagePositions()),
    "axial rotary in the encoder": (EncoderPositions("axial", table="replace"), LanguagePositions()),
    "interleaved M-RoPE in the language model": (EncoderPositions(), LanguagePositions("mrope", interleaved=True)),
}


class Ratio(NamedTuple):
    """Time of the peer over time of ours: above 1, ours is faster."""

    variant: str
    part: str
    ours_ms: float
    peer_ms: float
    ratio: float
    low: float
    high: float


def measure(variant: str, batch: int, calls: int) -> list[Ratio]:
    """Encoder and prefill of one variant against the peer."""
    encoder_positions, language_positions = VARIANTS[variant]
    torch.manual_seed(0)
    ours = _ours(encoder_positions, language_positions)
    peer = _peer()
    peer.load_state_dict(ours.state_dict())
    pixels_bchw = torch.randn(batch, 3, TOWER.image_size, TOWER.image_size)
    ids_bl = torch.cat([torch.full((batch, TOWER.grid**2), IMAGE), torch.randint(3, 31000, (batch, WORDS))], dim=1)
    inputs: dict[str, Any] = {"input_ids": ids_bl, "pixel_values": pixels_bchw, "use_cache": False}
    parts: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "encoder": (
            lambda: torch.stack(list(ours.model.get_image_features(pixels_bchw).pooler_output)),
            lambda: torch.stack(list(peer.model.get_image_features(pixels_bchw).pooler_output)),
        ),
        "prefill": (lambda: ours.model(**inputs)[0], lambda: peer.model(**inputs)[0]),
    }
    if variant == "everything as Llava":
        for name, (mine, theirs) in parts.items():
            assert torch.equal(mine(), theirs()), f"{name}: not the same function"
    return [_compare(variant, name, mine, theirs, calls) for name, (mine, theirs) in parts.items()]


def _ours(encoder_positions: EncoderPositions, language_positions: LanguagePositions) -> Any:
    language = LANGUAGE.config(0, 1, 2)
    model = build_variant(
        ENCODERS["clip"], TOWER, encoder_positions, language, IMAGE, "sdpa", language_positions=language_positions
    )
    model.config.vision_feature_layer = model.model.parts.layer = -2
    return model.eval()


def _peer() -> Any:
    config = llava_config(_ours(EncoderPositions(), LanguagePositions()).config)
    for part in (config, config.vision_config, config.text_config):
        part._attn_implementation = "sdpa"  # pyright: ignore
    return LlavaForConditionalGeneration(config).eval()


def _compare(variant: str, part: str, ours: Callable[[], Any], peer: Callable[[], Any], calls: int) -> Ratio:
    for warm_up in (ours, peer, ours, peer):
        warm_up()
    times = [(_seconds(ours), _seconds(peer)) for _ in range(calls)]
    ratios = [theirs / mine for mine, theirs in times]
    low, _, high = quantiles(ratios, n=4)
    mine_ms, peer_ms = (1e3 * median(side) for side in zip(*times, strict=True))
    return Ratio(variant, part, mine_ms, peer_ms, median(ratios), low, high)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--batch", type=int, default=4, help="images a call")
    arguments.add_argument("--calls", type=int, default=15, help="timed calls of each side")
    arguments.add_argument("--threads", type=int, default=1, help="torch threads")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for variant in VARIANTS for row in measure(variant, options.batch, options.calls)]
    if options.json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return
    table = Table("variant", "part", "ours ms", "peer ms", "ratio (quartiles)")
    for row in rows:
        spread = f"{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})"
        table.add_row(row.variant, row.part, f"{row.ours_ms:.0f}", f"{row.peer_ms:.0f}", spread)
    Console().print(table)


if __name__ == "__main__":
    main()
