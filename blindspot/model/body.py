"""The body of a variant: Llava's, with any connector and with positions at both sites."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, DynamicCache
from transformers.models.llava.modeling_llava import LlavaModel, LlavaModelOutputWithPast, LlavaPreTrainedModel
from transformers.utils.generic import ModelOutput

from blindspot import connectors
from blindspot.connectors.gated_cross_attention import initialise, last_image
from blindspot.encoders import features, grid_of
from blindspot.model.config import BlindspotConfig, Parts
from blindspot.positions import Grid, LanguagePositions
from blindspot.positions.encoder.attach import attach
from blindspot.positions.language import SCHEMES
from blindspot.positions.language.position_ids import mask, place
from blindspot.positions.language.rotation import install


@dataclass
class ImageFeatures(ModelOutput):
    """What the connector makes of a batch's images, in reading order."""

    pooler_output: list[Tensor] | None = None
    """Per image its tokens, shape (tokens, language width); the name is transformers' own."""
    grids: list[Grid | None] | None = None  # per image the grid of its tokens, or None where they lie on none


@dataclass
class Seen:
    """What later decode steps must know of the images in the cache; kept on the cache itself."""

    length: int  # tokens in the cache when the last image was read
    shift_b1: Tensor  # what to add to ordinary positions, per row
    media: list[Tensor] | None = None  # per image the tokens that gated cross-attention reads, or None
    last_image_b: Tensor | None = None  # index in ``media`` of each row's last image, -1 for none


class BlindspotModel(LlavaModel):
    """Llava's body with the positions and the connector that its config names.

    In a forward pass ``position_ids`` are ordinary 1-D positions whatever the scheme; its own follow from them. Inputs:

        input_ids: ids, shape (batch, length), with a placeholder for every token of every image.
        pixel_values: see `get_image_features`, as for ``spatial_shapes`` and ``vision_feature_layer``.
        attention_mask: shape (batch, length), or one added to the scores, shape (batch, 1, length, length).
        position_ids: shape (batch, length); by default counted along the attention mask, or, in a model whose
            language model keeps its own positions, left to it as Llava does.
        past_key_values: a cache; remembers the images that it has seen.
        inputs_embeds: instead of ``input_ids``, where no image is new.
        spatial_shapes: grids of images that differ in shape; ``pixel_attention_mask`` follows from them.
        mm_encoder_outputs: ``{"image": ...}``, what `get_image_features` gave, instead of pixels.
    """

    config: BlindspotConfig
    _keep_in_fp32_modules_strict = ["rotation"]  # noqa: RUF012  (transformers' own form)

    def __init__(self, config: BlindspotConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)  # LlavaModel's own would build the two-layer MLP
        self.parts = Parts(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = connectors.build(self.parts.connector, config)
        self.language_model = AutoModel.from_config(config.text_config)
        if self.parts.language_positions.scheme == "row_break":
            width = config.text_config.hidden_size  # pyright: ignore
            self.image_newline = nn.Parameter(torch.randn(width) / width**0.5)  # LLaVA-NeXT's name and start
        self.post_init()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BlindspotModel":
        """Move or cast, but leave rotary frequencies in float32: in bfloat16 they would be those of another model."""

        def frequencies() -> list[tuple[str, Tensor]]:
            named = [*self.named_buffers(), *self.named_parameters()]
            return [(name, tensor) for name, tensor in named if name.endswith(("inv_freq", "rotation.frequencies"))]

        exact = {name: tensor.data for name, tensor in frequencies()}
        super()._apply(fn, recurse)
        for name, tensor in frequencies():
            if tensor.dtype != torch.float32:
                tensor.data = exact[name].to(tensor.device)
        return self

    @property
    def gated(self) -> bool:
        """Whether images enter through cross-attention between layers, not as tokens."""
        return self.parts.connector.name == "gated_cross_attention"

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        initialise(module)

    def attach_positions(self) -> None:
        """Give both sites their positions and the language model its gated layers, replacing earlier ones."""
        parts = self.parts
        attach(self.vision_tower, parts.encoder_positions, parts.native_grid, parts.prefix_tokens)
        if parts.encoder_positions.frozen_encoder:
            self.vision_tower.requires_grad_(False)
        install(self.language_model, parts.language_positions)
        if self.gated:
            self.multi_modal_projector.attach(self.language_model)  # pyright: ignore

    def get_image_features(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        pixel_values: Tensor,
        spatial_shapes: Tensor | None = None,
        vision_feature_layer: int | None = None,
        **kwargs: Any,
    ) -> ImageFeatures:
        """Images as tokens of the language model.

        Args:
            pixel_values: shape (n, 3, height, width), or of a family with varying shapes (n, patches, channels).
            spatial_shapes: for such a family the grid of every image, shape (n, 2).
            vision_feature_layer: instead of the config's.
        """
        parts = self.parts
        layer = parts.layer if vision_feature_layer is None else vision_feature_layer
        patches_bnd = features(self.vision_tower, parts.encoder, pixel_values, layer, spatial_shapes)
        if spatial_shapes is None:
            grid = grid_of(parts.encoder, self.vision_tower.config, pixel_values)
            return ImageFeatures(list(self._connect(patches_bnd, grid)), [parts.output_grid(grid)] * len(patches_bnd))
        grids: list[Grid] = [(rows, columns) for rows, columns in spatial_shapes.tolist()]
        tokens: list[Tensor] = [patches_bnd] * len(grids)
        for grid in set(grids):
            members = [index for index, other in enumerate(grids) if other == grid]
            connected = self._connect(patches_bnd[members, : grid[0] * grid[1]], grid)
            for index, image in zip(members, connected, strict=True):
                tokens[index] = image
        return ImageFeatures(tokens, [parts.output_grid(grid) for grid in grids])

    def _connect(self, patches_bnd: Tensor, grid: Grid) -> Tensor:
        if self.parts.drops_first_patch:
            patches_bnd = patches_bnd[:, 1:]
        tokens_bmd = self.multi_modal_projector(patches_bnd, grid)
        if self.parts.language_positions.scheme != "row_break":
            return tokens_bmd
        ordered = self.parts.output_grid(grid)
        assert ordered is not None, "config.Parts refuses row breaks without rows"
        rows_bhwd = tokens_bmd.unflatten(1, ordered)
        breaks_bh1d = self.image_newline.expand(*rows_bhwd.shape[:2], 1, -1).to(rows_bhwd.dtype)
        return torch.cat([rows_bhwd, breaks_bh1d], dim=2).flatten(1, 2)

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
        vision_feature_layer: int | None = None,
        vision_feature_select_strategy: str | None = None,
        image_sizes: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """As Llava's; see the class for the inputs."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if vision_feature_select_strategy is not None or image_sizes is not None:
            raise ValueError("vision_feature_select_strategy and image_sizes are the config's matter in a variant")
        embeds_bld: Tensor = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        images: ImageFeatures | None = (mm_encoder_outputs or {}).get("image")
        if images is None and pixel_values is not None:
            images = self.get_image_features(pixel_values, spatial_shapes, vision_feature_layer)
        tokens = [] if images is None or images.pooler_output is None else images.pooler_output
        is_image_bl = self.placeholders(input_ids, embeds_bld)
        own_layout = self.gated or self.parts.language_positions != LanguagePositions()
        if own_layout:
            text: Any = self.config.text_config
            if past_key_values is None and (text.use_cache if kwargs.get("use_cache") is None else kwargs["use_cache"]):
                past_key_values = DynamicCache(config=text)
            if images is None and past_key_values is not None and past_key_values.get_seq_length():
                is_image_bl = torch.zeros_like(is_image_bl)  # a placeholder that the model itself wrote
        if (tokens or self.gated) and not is_image_bl.is_meta:  # where nothing can be counted
            places, needed = int(is_image_bl.sum()), len(tokens) if self.gated else sum(map(len, tokens))
            if places != needed:
                raise ValueError(f"the images need {needed} placeholders, and the text has {places}")
        if tokens and not self.gated:
            flat_td = torch.cat(tokens).to(embeds_bld.device, embeds_bld.dtype)
            embeds_bld = embeds_bld.masked_scatter(is_image_bl[..., None], flat_td)
        if own_layout:
            attention_mask, position_ids = self._lay_out(
                embeds_bld, is_image_bl, images, attention_mask, position_ids, past_key_values
            )
        outputs = self.language_model(
            inputs_embeds=embeds_bld,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return LlavaModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=torch.cat(tokens) if tokens else None,  # pyright: ignore[reportArgumentType]
        )

    def placeholders(self, input_ids: Tensor | None, embeds_bld: Tensor) -> Tensor:
        """Where a token stands for an image's, shape (batch, length); by the ids, or else by the embeddings."""
        image: int = self.config.image_token_id  # pyright: ignore[reportAttributeAccessIssue]
        if input_ids is not None:
            return input_ids == image
        row_d = self.get_input_embeddings()(torch.tensor(image, device=embeds_bld.device))
        return (embeds_bld == row_d).all(dim=-1)

    def _lay_out(
        self,
        embeds_bld: Tensor,
        is_image_bl: Tensor,
        images: ImageFeatures | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        cache: Any,
    ) -> tuple[Tensor | None, Tensor]:
        """Mask and positions of the language model under the scheme; remembers on the cache what decoding needs."""
        (batch, length), positions = is_image_bl.shape, self.parts.language_positions
        past = 0 if cache is None else int(cache.get_seq_length())
        before: Seen | None = getattr(cache, "blindspot_seen", None) if past else None  # else the cache was reset
        if past and before is None:
            raise ValueError("this cache was filled without the variant's forward pass; begin with an empty one")
        if before is not None and past < before.length:
            raise ValueError(
                f"the cache was cut to {past} tokens, and its last image was read at {before.length}: begin with an "
                "empty one"
            )
        if attention_mask is None:  # without one, transformers takes repeated positions for packed documents
            attention_mask = is_image_bl.new_ones(batch, past + length, dtype=torch.long)
        if position_ids is not None:
            logical_bl = position_ids.expand(batch, length)
        elif attention_mask.ndim == 2:  # padding is not counted
            logical_bl = (attention_mask.long().cumsum(dim=1) - 1).clamp_(min=0)[:, -length:]
        else:
            raise ValueError("give position_ids with a four-dimensional attention mask")
        ids = logical_bl if before is None else logical_bl + before.shift_b1
        shift_b1 = logical_bl.new_zeros(batch, 1)
        if not self.gated:
            tokens, found = ([], []) if images is None else (images.pooler_output or [], images.grids or [])
            if len(found) != len(tokens):
                raise ValueError("images were divided (prefill_chunk_size?), which these positions do not allow")
            grids = [(1, len(one)) if grid is None else grid for grid, one in zip(found, tokens, strict=True)]
            if grids and SCHEMES[positions.scheme].rings and getattr(cache, "is_compileable", False):
                raise ValueError("concentric positions need a cache that grows; leave out cache_implementation")
            placement = place(positions, ids, is_image_bl, grids)
            attention_mask = mask(positions, is_image_bl, grids, attention_mask, embeds_bld.dtype)
            ids, shift_b1 = placement.ids_abl, placement.delta_b[:, None]
        if before is None:
            now = Seen(past + length, shift_b1)
        else:
            now = Seen(before.length if images is None else past + length, before.shift_b1 + shift_b1)
        if self.gated:
            now.media, last_image_bl = _media(images, is_image_bl, logical_bl, before)
            now.last_image_b = last_image_bl[:, -1]
            self.multi_modal_projector.set_images(now.media, last_image_bl)  # pyright: ignore
        if cache is not None:
            cache.blindspot_seen = now
        return attention_mask, ids


def _media(
    images: ImageFeatures | None, is_image_bl: Tensor, logical_bl: Tensor, before: Seen | None
) -> tuple[list[Tensor] | None, Tensor]:
    """All images that cross-attention reads, and for every token the index of the last one before it.

    As in `place`, a token whose ordinary position falls back to before its image's begins another document.
    """
    old, first_b1 = None, torch.full_like(is_image_bl[:, :1], -1, dtype=torch.long)
    if before is not None and before.last_image_b is not None:
        old, first_b1 = before.media, before.last_image_b[:, None]
    new = [] if images is None or images.pooler_output is None else list(images.pooler_output)
    newest_bl = last_image(is_image_bl)
    if new:
        logical_k, begun_bl = logical_bl[is_image_bl], newest_bl.clamp(min=0)
        document_bl = ((newest_bl >= 0) & ~is_image_bl & (logical_bl <= logical_k[begun_bl])).cumsum(dim=1)
        newest_bl = newest_bl.masked_fill(document_bl[is_image_bl][begun_bl] != document_bl, -1)
    last_bl = torch.where(newest_bl < 0, first_b1, newest_bl + len(old or []))
    return [*(old or []), *new] if new else old, last_bl  # an unchanged list lets the blocks keep keys and values
