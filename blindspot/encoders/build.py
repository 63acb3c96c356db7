"""A tower to be trained from nothing."""

from transformers import PreTrainedModel

from blindspot.encoders.base import Encoder, TowerShape
from blindspot.positions import EncoderPositions, attach, start_table


def build_tower(
    encoder: Encoder, shape: TowerShape, positions: EncoderPositions, attention: str = "eager"
) -> PreTrainedModel:
    """A randomly initialised tower with its positions attached.

    Args:
        encoder: the family.
        shape: the size.
        positions: how the tower knows places.
        attention: transformers' attention implementation. ``eager`` is the default because the backward of ``sdpa``
            is twice as slow on a CPU at miniature size in bf16.
    """
    config = encoder.vision_config(shape)
    config._attn_implementation = attention
    tower = encoder.model_class(config)
    start_table(tower, shape.grid, encoder.prefix_tokens)
    attach(tower, positions, shape.grid, encoder.prefix_tokens)
    return tower
