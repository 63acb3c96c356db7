"""Small towers whose weights are large enough for every difference to show."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from blindspot.encoders import ENCODERS, TowerShape


@pytest.fixture(scope="session")
def shape() -> TowerShape:
    return TowerShape(width=32, layers=3, heads=2, mlp_width=64, image_size=48, patch_size=8)


@pytest.fixture
def make_tower(shape: TowerShape) -> Callable[..., Any]:
    def make(family: str, attention: str = "eager") -> Any:
        torch.manual_seed(0)
        config = ENCODERS[family].vision_config(shape)
        config._attn_implementation = attention
        tower = ENCODERS[family].model_class(config)
        for parameter in tower.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        return tower.eval()

    return make
