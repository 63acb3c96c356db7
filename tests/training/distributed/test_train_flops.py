"""Counted operations against the formula for LLaVA-1.5-7B (specs: efficiency, 4.1)."""

import torch

from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.build import LanguageShape, build_variant
from blindspot.positions import EncoderPositions
from blindspot.training.flops import costs
from blindspot.training.packing import TrainingSample, collate
from blindspot.training.parts import freeze


def test_a_sample_of_llava_7b_costs_what_the_formula_says() -> None:
    with torch.device("meta"):
        tower = TowerShape(width=1024, layers=24, heads=16, mlp_width=4096, image_size=256, patch_size=16)
        language = LanguageShape(4096, 32, 32, 11008, 10000.0, 32000).config(0, 1, 2)
        variant = build_variant(ENCODERS["siglip"], tower, EncoderPositions(), language, 31999)
    text, answer, image = 300, 100, 256
    sample = TrainingSample("a", [31999] * image + [5] * text, [-100] * (image + text - answer) + [5] * answer, (0,))
    micro = collate([("a", sample)], [{"pixel_values": torch.zeros(3, 256, 256)}], packed=True)
    blocks, head, connector = 6.476e9, 0.131e9, 20.98e6
    tokens = image + text
    tower_forward = 161e9 - 2 * 0 - 256 * 256 * 2 * 2 * 1024 * 24  # the table's, less attention among patches
    for frozen, factor, head_factor in ((("vision_tower",), 3, 3), (("vision_tower", "language_model"), 2, 2)):
        variant.requires_grad_(True)
        freeze(variant, frozen)
        expected = (
            2 * blocks * tokens * factor
            + 2 * head * answer * head_factor
            + 2 * tokens**2 * 4096 * 32 * 3
            + 2 * connector * image * 2
            + tower_forward
        )
        assert abs(costs(variant).of(micro) / expected - 1) < 0.01
