"""Small towers whose weights are large enough for every difference to show."""

from typing import Any

import torch
from torch import nn

from blindspot.encoders import ENCODERS, TowerShape, build_tower
from blindspot.positions import EncoderPositions
from blindspot.positions.encoder.attach import attach

SHAPE = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)


def tower_of(family: str, positions: EncoderPositions, attention: str = "eager") -> Any:
    """A tower of a family with 4 x 4 patches and these positions; its other weights are always the same ones."""
    torch.manual_seed(0)
    tower = build_tower(ENCODERS[family], SHAPE, EncoderPositions(), attention)
    for parameter in tower.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    attach(tower, positions, SHAPE.grid, ENCODERS[family].prefix_tokens)
    return tower.eval()
