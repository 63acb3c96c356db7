"""A variant from its parts, with random weights."""

from dataclasses import dataclass

from transformers import LlamaConfig, PreTrainedConfig

from blindspot.connectors import ConnectorSpec
from blindspot.encoders import Encoder, TowerShape
from blindspot.model.config import variant_config
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.positions import EncoderPositions, LanguagePositions


@dataclass(frozen=True)
class LanguageShape:
    """Size of the language model, a Llama decoder: channels of a token, blocks, heads, hidden channels of each SwiGLU
    branch, base of its 1-D rotary positions, number of token ids, and the longest sequence that it is meant for.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    rotary_base: float
    vocabulary: int
    positions: int = 1024

    def config(self, pad: int, begin: int, end: int) -> LlamaConfig:
        """The Llama configuration of this size, with the ids of the padding, begin and end tokens."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.positions,
            rope_parameters={"rope_type": "default", "rope_theta": self.rotary_base},
            pad_token_id=pad,
            bos_token_id=begin,
            eos_token_id=end,
        )


def build_variant(
    encoder: Encoder,
    tower: TowerShape,
    positions: EncoderPositions,
    language: PreTrainedConfig,
    image_token: int,
    attention: str = "eager",
    language_positions: LanguagePositions = LanguagePositions(),  # noqa: B008  (frozen)
    connector: ConnectorSpec = ConnectorSpec(),  # noqa: B008
    drop_first_patch: bool = False,
    layer: int = -1,
) -> BlindspotForConditionalGeneration:
    """A variant with random weights.

    Args:
        positions: of the encoder; ``language_positions``: of its tokens in the language model.
        image_token: id of the placeholder that image features replace.
        attention: transformers' attention implementation (``eager`` is the fastest to train on a CPU at this size).
        drop_first_patch: repeat the defect of the study's public code on towers without CLS (a negative control).
        layer: of the encoder, that is read; see `features`.
    """
    vision = encoder.vision_config(tower)
    strategy = "default" if drop_first_patch else encoder.feature_select_strategy
    config = variant_config(vision, language, image_token, layer, strategy, positions, language_positions, connector)
    for part in (config, vision, language):
        part._attn_implementation = attention
    return BlindspotForConditionalGeneration(config)
