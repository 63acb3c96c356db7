"""The configuration of a variant: Llava's, and everything else that is needed to rebuild the same function."""

from typing import Any

from transformers import LlavaConfig, PreTrainedConfig

from blindspot.connectors import ConnectorSpec, output_grid, output_tokens
from blindspot.encoders import Encoder, detect, native_grid
from blindspot.errors import UserError
from blindspot.positions import EncoderPositions, Grid, LanguagePositions, check
from blindspot.positions.language.position_ids import tokens_per_image


class BlindspotConfig(LlavaConfig):
    """Llava's config, and where a variant departs from it: `OWN`, each the ``to_dict`` of its class.

    ``vision_feature_select_strategy`` keeps Llava's meaning: "default" leaves out the first token. On a tower without
    CLS that drops the first patch, as the public code of the study did with SigLIP (specs: released_code, 7).
    """

    model_type = "blindspot"

    encoder_positions: dict[str, Any] | None = None
    language_positions: dict[str, Any] | None = None
    connector: dict[str, Any] | None = None


OWN = ("encoder_positions", "language_positions", "connector")


class Parts:
    """A config's parts as typed values, checked against each other.

    A config that leaves a part out is a ValueError: guessing would give another function of the same weights.
    """

    def __init__(self, config: BlindspotConfig) -> None:
        own: dict[str, Any] = {key: getattr(config, key) for key in OWN}
        for key, value in own.items():
            if value is None:
                raise ValueError(f"a config with model_type {config.model_type} needs {key}, and it has none")
            if not isinstance(value, dict):
                raise UserError(f"config: {key} must be a mapping, got {value!r}")
        self.encoder_positions = EncoderPositions.from_dict(own["encoder_positions"])
        self.language_positions = LanguagePositions.from_dict(own["language_positions"])
        self.connector = ConnectorSpec.from_dict(own["connector"])
        vision: Any = config.vision_config
        self.encoder: Encoder = detect(vision)
        self.prefix_tokens = self.encoder.prefix_tokens_in(vision)
        if config.vision_feature_select_strategy == "full" and self.prefix_tokens:
            raise UserError(
                f'vision_feature_select_strategy "full" would keep the {self.prefix_tokens} prefix token(s) of '
                f'{self.encoder.label} among the patches; set it to "default"'
            )
        self.drops_first_patch = config.vision_feature_select_strategy == "default" and not self.prefix_tokens
        if not isinstance(config.vision_feature_layer, int):
            raise UserError("vision_feature_layer: one layer, not a list; a variant reads one layer's features")
        self.layer: int = config.vision_feature_layer
        blocks: int = vision.num_hidden_layers
        if not -blocks - 1 <= self.layer <= blocks:
            raise UserError(f"vision_feature_layer {self.layer}: the tower has {blocks} blocks")
        self.native_grid: Grid = native_grid(vision)
        check(self.language_positions, self.output_grid(self.native_grid))

    def output_grid(self, grid: Grid) -> Grid | None:
        """Grid of the image's tokens in the language model, or None if they lie on none."""
        return None if self.drops_first_patch else output_grid(self.connector, grid)

    def image_tokens(self, grid: Grid) -> int:
        """Placeholder tokens of an image whose patches form ``grid``."""
        return image_tokens(self.connector, self.language_positions, grid, self.drops_first_patch)

    def specialities(self) -> list[str]:
        """What of a variant transformers' own Llava cannot express, in words; empty for a plain one."""
        found = []
        if self.encoder_positions != EncoderPositions():
            found.append(f"encoder positions {self.encoder_positions.to_dict()}")
        if self.language_positions != LanguagePositions():
            found.append(f"language positions {self.language_positions.to_dict()}")
        if self.connector != ConnectorSpec():
            found.append(f"connector {self.connector.to_dict()}")
        if self.encoder.variable_resolution:
            found.append(f"{self.encoder.label} images of varying shape")
        if self.prefix_tokens > 1:
            found.append(f"{self.prefix_tokens} prefix tokens of {self.encoder.label}, of which Llava drops one")
        return found


def image_tokens(
    connector: ConnectorSpec, language_positions: LanguagePositions, grid: Grid, drops_first_patch: bool
) -> int:
    """Placeholder tokens of an image whose patches form ``grid``."""
    if drops_first_patch:
        return grid[0] * grid[1] - 1
    ordered = output_grid(connector, grid)
    return output_tokens(connector, grid) if ordered is None else tokens_per_image(language_positions, ordered)


def variant_config(
    vision: PreTrainedConfig,
    text: PreTrainedConfig,
    image_token: int,
    layer: int,
    strategy: str,
    positions: EncoderPositions,
    language_positions: LanguagePositions,
    connector: ConnectorSpec,
    **more: Any,
) -> BlindspotConfig:
    """A variant's configuration from its parts; special tokens are the language model's unless ``more`` names them."""
    values: dict[str, Any] = {
        **{key: getattr(text, key, None) for key in ("pad_token_id", "bos_token_id", "eos_token_id")},
        "vision_config": vision,
        "text_config": text,
        "image_token_index": image_token,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": strategy,
        "encoder_positions": positions.to_dict(),
        "language_positions": language_positions.to_dict(),
        "connector": connector.to_dict(),
        **more,
    }
    config = BlindspotConfig(**values)
    parts = Parts(config)
    config.image_seq_length = parts.image_tokens(parts.native_grid)
    return config


def from_llava_config(config: LlavaConfig) -> BlindspotConfig:
    """The variant that computes what ``config`` does in transformers' Llava."""
    values: dict[str, Any] = {key: value for key, value in config.to_dict().items() if key != "model_type"}
    plain = (EncoderPositions(), LanguagePositions(), ConnectorSpec())
    values |= {key: part.to_dict() for key, part in zip(OWN, plain, strict=True)}
    return BlindspotConfig(**values)


def llava_config(config: BlindspotConfig) -> LlavaConfig:
    """The inverse of `from_llava_config`, for a plain variant."""
    values: dict[str, Any] = {key: value for key, value in config.to_dict().items() if key not in ("model_type", *OWN)}
    return LlavaConfig(**values)
