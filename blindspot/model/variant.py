"""The trained object: transformers' own Llava, subclassed only for what Llava cannot express.

An arm without a special positional scheme *is* a `LlavaForConditionalGeneration` checkpoint. With one, the checkpoint
has ``model_type: blindspot`` and its config holds everything needed to rebuild the same function.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from blindspot.encoders import Encoder, TowerShape
from blindspot.positions import EncoderPositions, attach


class BlindspotConfig(LlavaConfig):
    """Llava's config and the positions of the image encoder (``encoder_positions``, see `EncoderPositions`)."""

    model_type = "blindspot"

    encoder_positions: dict[str, Any] | None = None
    prefix_tokens: int | None = None


class BlindspotForConditionalGeneration(LlavaForConditionalGeneration):
    """Llava whose image encoder has the positions that its config names."""

    config_class = BlindspotConfig

    def __init__(self, config: BlindspotConfig) -> None:
        super().__init__(config)
        self.attach_positions()

    def attach_positions(self) -> None:
        """Give the image encoder its positions, replacing any that were attached before.

        Raises:
            ValueError: if the config does not state them; guessing would give another function of the same weights.
        """
        values, prefix_tokens = self.config.encoder_positions, self.config.prefix_tokens
        if values is None or prefix_tokens is None:
            missing = "encoder_positions" if values is None else "prefix_tokens"
            raise ValueError(f"a config with model_type {self.config.model_type} needs {missing}, and it has none")
        vision: Any = self.config.vision_config
        grid = vision.image_size // vision.patch_size
        attach(self.model.vision_tower, EncoderPositions.from_dict(values), grid, prefix_tokens)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).attach_positions()
        return loaded

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        super().set_attn_implementation(*args, **kwargs)
        self.attach_positions()


AutoConfig.register("blindspot", BlindspotConfig)
AutoModel.register(BlindspotConfig, BlindspotForConditionalGeneration)
AutoModelForImageTextToText.register(BlindspotConfig, BlindspotForConditionalGeneration)


@dataclass(frozen=True)
class LanguageShape:
    """Size of the language model: a Llama decoder.

    Attributes:
        width: channels of a token.
        layers: transformer blocks.
        heads: attention heads.
        mlp_width: hidden channels of each SwiGLU branch.
        rotary_base: base of its 1-D rotary positions.
        vocabulary: number of token ids.
        positions: longest sequence it is meant for.
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
    language: LlamaConfig,
    image_token: int,
    attention: str = "eager",
) -> LlavaForConditionalGeneration:
    """A variant with random weights.

    Args:
        encoder: family of the image encoder.
        tower: size of the image encoder.
        positions: how the image encoder knows places.
        language: configuration of the language model.
        image_token: id of the placeholder that image features replace.
        attention: transformers' attention implementation (``eager`` is the fastest to train on a CPU at this size).
    """
    common = {
        "vision_config": encoder.vision_config(tower),
        "text_config": language,
        "image_token_index": image_token,
        "image_seq_length": tower.grid**2,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": encoder.feature_select_strategy,
        "pad_token_id": language.pad_token_id,
        "bos_token_id": language.bos_token_id,
        "eos_token_id": language.eos_token_id,
    }
    if positions == EncoderPositions():
        return _with_attention(LlavaForConditionalGeneration, LlavaConfig(**common), attention)
    config = BlindspotConfig(**common, encoder_positions=positions.to_dict(), prefix_tokens=encoder.prefix_tokens)
    return _with_attention(BlindspotForConditionalGeneration, config, attention)


def _with_attention(model_class: type[nn.Module], config: LlavaConfig, attention: str) -> Any:
    parts: tuple[Any, ...] = (config, config.vision_config, config.text_config)
    for part in parts:
        part._attn_implementation = attention
    return model_class(config)
