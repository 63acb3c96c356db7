"""The trained object: transformers' own Llava, subclassed only for what Llava cannot express.

In memory a variant is always a `BlindspotForConditionalGeneration`, whose tensors have Llava's names. `save` writes a
plain one as an ordinary ``llava`` checkpoint; any other has ``model_type: blindspot``, and its config holds everything
needed to rebuild the same function.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel

from blindspot.model.body import BlindspotModel, ImageFeatures
from blindspot.model.config import BlindspotConfig, Parts, from_llava_config, llava_config
from blindspot.positions import Grid


class BlindspotForConditionalGeneration(LlavaForConditionalGeneration):
    """Llava with the encoder positions, the connector and the language positions that its config names."""

    config_class = BlindspotConfig
    config: BlindspotConfig
    model: BlindspotModel
    _keep_in_fp32_modules_strict = BlindspotModel._keep_in_fp32_modules_strict

    def __init__(self, config: BlindspotConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = BlindspotModel(config)
        text: Any = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()
        self.model.attach_positions()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As Llava's; see `BlindspotModel.forward` for the inputs."""
        return super().forward(
            input_ids=input_ids,  # pyright: ignore[reportArgumentType]
            pixel_values=pixel_values,  # pyright: ignore[reportArgumentType]
            attention_mask=attention_mask,
            position_ids=position_ids,  # pyright: ignore[reportArgumentType]
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,  # pyright: ignore[reportArgumentType]
            spatial_shapes=spatial_shapes,  # pyright: ignore[reportCallIssue]
            labels=labels,  # pyright: ignore[reportArgumentType]
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )

    @property
    def tokens_per_image(self) -> int:
        """Placeholder tokens of an image of the size that the config names."""
        return self.model.parts.image_tokens(self.model.parts.native_grid)

    def _expand_multimodal_outputs(  # transformers counts placeholders and would leave our grids as they are
        self, input_ids: Tensor, mm_encoder_output: dict[str, Any], expand_size: int = 1, inputs_embeds: Any = None
    ) -> dict[str, Any]:
        images: ImageFeatures | None = mm_encoder_output.get("image")
        if images is None or images.pooler_output is None or images.grids is None:
            return mm_encoder_output
        pairs = iter(zip(images.pooler_output, images.grids, strict=True))
        repeated: list[tuple[Tensor, Grid | None]] = []
        for places in self.model.placeholders(input_ids, inputs_embeds).sum(dim=1).tolist():
            row: list[tuple[Tensor, Grid | None]] = []
            while sum(1 if self.model.gated else len(image) for image, _ in row) < places:
                row.append(next(pairs))
            repeated += row * expand_size
        expanded = ImageFeatures([image for image, _ in repeated], [grid for _, grid in repeated])
        return {**mm_encoder_output, "image": expanded}

    @classmethod
    def from_pretrained(cls, path: str | Path, *args: Any, config: Any = None, **kwargs: Any) -> Any:
        """As transformers' own; a plain ``llava`` checkpoint opens as the variant that computes the same."""
        if config is None:
            where = ("cache_dir", "local_files_only", "revision", "subfolder", "token")
            config = AutoConfig.from_pretrained(path, **{key: kwargs[key] for key in where if key in kwargs})
        if type(config) is LlavaConfig:
            config = from_llava_config(config)
        loaded = super().from_pretrained(path, *args, config=config, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.model.attach_positions()
        # Kernels out of the mapped file: at an odd address a CPU's convolution rounds otherwise than in training.
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                for parameter in module.parameters():
                    parameter.data = parameter.data.clone()
        return loaded

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        super().set_attn_implementation(*args, **kwargs)
        self.model.attach_positions()


def save(model: BlindspotForConditionalGeneration, folder: Path) -> None:
    """Write a checkpoint: an ordinary ``llava`` one, which transformers opens anywhere, if the variant is plain."""
    if Parts(model.config).specialities():
        model.save_pretrained(folder)
        return
    with torch.device("meta"):
        plain = LlavaForConditionalGeneration(llava_config(model.config))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)


AutoConfig.register("blindspot", BlindspotConfig)
AutoModel.register(BlindspotConfig, BlindspotForConditionalGeneration)
AutoModelForImageTextToText.register(BlindspotConfig, BlindspotForConditionalGeneration)
register_checkpoint_conversion_mapping("blindspot", get_checkpoint_conversion_mapping("llava") or [])
register_checkpoint_conversion_mapping("BlindspotModel", get_checkpoint_conversion_mapping("LlavaModel") or [])
