"""Images and questions to model input, in the format that transformers loads anywhere."""

from typing import Any

from PIL.Image import Resampling
from transformers import AutoProcessor, LlavaProcessor, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot.connectors import ConnectorSpec
from blindspot.model.config import BlindspotConfig, Parts, image_tokens
from blindspot.model.tokenizer import IMAGE
from blindspot.positions import LanguagePositions


class BlindspotProcessor(LlavaProcessor):
    """Llava's processor for variants whose images do not take one token a patch, or come in varying shapes.

    ``connector`` and ``language_positions`` are `to_dict` of these; all else is as in `LlavaProcessor`.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int | None = None,
        vision_feature_select_strategy: str | None = None,
        chat_template: str | None = None,
        image_token: str = IMAGE,
        num_additional_image_tokens: int = 0,
        connector: dict[str, Any] | None = None,
        language_positions: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.connector = connector
        self.language_positions = language_positions
        super().__init__(
            image_processor,
            tokenizer,
            patch_size,
            vision_feature_select_strategy,
            chat_template,
            image_token,
            num_additional_image_tokens,
            **kwargs,
        )

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The placeholders of one image."""
        if "spatial_shapes" in image_inputs:
            rows, columns = (int(side) for side in image_inputs["spatial_shapes"][image_idx])
        else:
            height, width = image_inputs["pixel_values"][image_idx].shape[-2:]
            rows, columns = height // self.patch_size, width // self.patch_size
        tokens = image_tokens(
            ConnectorSpec.from_dict(self.connector or {}),
            LanguagePositions.from_dict(self.language_positions or {}),
            (rows, columns),
            drops_first_patch=self.vision_feature_select_strategy == "default" and not self.num_additional_image_tokens,
        )
        return self.image_token * tokens


def build_processor(
    config: BlindspotConfig, tokenizer: PreTrainedTokenizerBase, image_processor: Any = None
) -> LlavaProcessor:
    """The processor of a variant.

    Args:
        config: the variant's.
        tokenizer: of its language model.
        image_processor: how pictures become pixels; by default they are warped to the square of the config, so that a
            picture of that size reaches the model unchanged, and resampled and normalised as the family does (SigLIP2,
            whose config is SigLIP's, as SigLIP does). A family that keeps the aspect ratio has its own processor, with
            at most as many patches as that square.
    """
    parts = Parts(config)
    vision: Any = config.vision_config
    if image_processor is None and parts.encoder.variable_resolution:
        image_processor = parts.encoder.image_processor(parts.native_grid[0] * vision.patch_size, vision.patch_size)
    elif image_processor is None:
        image_processor = CLIPImageProcessorPil(
            size={"height": vision.image_size, "width": vision.image_size},
            do_center_crop=False,
            image_mean=list(parts.encoder.images.mean),
            image_std=list(parts.encoder.images.std),
            resample=Resampling[parts.encoder.images.resample.upper()],
        )
    common = {
        "image_processor": image_processor,
        "tokenizer": tokenizer,
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": parts.prefix_tokens,
        "image_token": IMAGE,
        "chat_template": tokenizer.chat_template,
    }
    if not parts.specialities():
        return LlavaProcessor(**common)
    return BlindspotProcessor(
        **common,
        connector=parts.connector.to_dict(),
        language_positions=parts.language_positions.to_dict(),
    )


AutoProcessor.register(BlindspotConfig, BlindspotProcessor)
