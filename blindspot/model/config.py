"""The configuration of a variant: Llava's, and everything else that is needed to rebuild the same function."""

from typing import Any

from transformers import LlavaConfig

from blindspot.connectors import ConnectorSpec, output_grid, output_tokens
from blindspot.encoders import Encoder, detect, native_grid
from blindspot.errors import UserError
from blindspot.positions import EncoderPositions, Grid, LanguagePositions, check
from blindspot.positions.language.position_ids import tokens_per_image


class BlindspotConfig(LlavaConfig):
    """Llava's config, and where a variant departs from it.

    Attributes:
        encoder_positions: see `EncoderPositions`.
        language_positions: see `LanguagePositions`.
        connector: see `ConnectorSpec`.

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

    Raises:
        ValueError: if the config leaves a part out; guessing would give another function of the same weights.
        UserError: if the parts do not fit together, or a part is wrong in itself.
    """

    def __init__(self, config: BlindspotConfig) -> None:
        for key in OWN:
            if getattr(config, key) is None:
                raise ValueError(f"a config with model_type {config.model_type} needs {key}, and it has none")
            if not isinstance(getattr(config, key), dict):
                raise UserError(f"config: {key} must be a mapping, got {getattr(config, key)!r}")
        assert config.encoder_positions is not None
        assert config.language_positions is not None
        assert config.connector is not None
        self.encoder_positions = EncoderPositions.from_dict(config.encoder_positions)
        self.language_positions = LanguagePositions.from_dict(config.language_positions)
        self.connector = ConnectorSpec.from_dict(config.connector)
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


def image_tokens(
    connector: ConnectorSpec, language_positions: LanguagePositions, grid: Grid, drops_first_patch: bool
) -> int:
    """Placeholder tokens of an image whose patches form ``grid``."""
    if drops_first_patch:
        return grid[0] * grid[1] - 1
    ordered = output_grid(connector, grid)
    return output_tokens(connector, grid) if ordered is None else tokens_per_image(language_positions, ordered)


def is_plain(config: BlindspotConfig) -> bool:
    """Whether transformers' own Llava computes the same function."""
    return not specialities(config)


def specialities(config: BlindspotConfig) -> list[str]:
    """What of a variant transformers' own Llava cannot express, in words; empty for a plain one."""
    parts = Parts(config)
    found = []
    if parts.encoder_positions != EncoderPositions():
        found.append(f"encoder positions {parts.encoder_positions.to_dict()}")
    if parts.language_positions != LanguagePositions():
        found.append(f"language positions {parts.language_positions.to_dict()}")
    if parts.connector != ConnectorSpec():
        found.append(f"connector {parts.connector.to_dict()}")
    if parts.encoder.variable_resolution:
        found.append(f"{parts.encoder.label} images of varying shape")
    if parts.prefix_tokens > 1:
        found.append(f"{parts.prefix_tokens} prefix tokens of {parts.encoder.label}, of which Llava drops one")
    return found


def from_llava_config(config: LlavaConfig) -> BlindspotConfig:
    """The variant that computes what ``config`` does in transformers' Llava."""
    values: dict[str, Any] = {key: value for key, value in config.to_dict().items() if key != "model_type"}
    values |= _defaults()
    return BlindspotConfig(**values)


def llava_config(config: BlindspotConfig) -> LlavaConfig:
    """The inverse of `from_llava_config`, for a plain variant."""
    values: dict[str, Any] = {key: value for key, value in config.to_dict().items() if key not in ("model_type", *OWN)}
    return LlavaConfig(**values)


def _defaults() -> dict[str, dict[str, Any]]:
    parts = (EncoderPositions(), LanguagePositions(), ConnectorSpec())
    return {key: part.to_dict() for key, part in zip(OWN, parts, strict=True)}
