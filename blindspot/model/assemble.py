"""A variant from real parts: an image encoder's checkpoint, a language model's, and a connector that is new."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from blindspot import connectors
from blindspot.connectors import ConnectorSpec
from blindspot.encoders import Encoder, detect
from blindspot.errors import UserError, explained
from blindspot.model.config import variant_config
from blindspot.model.conversation import CHAT_TEMPLATES
from blindspot.model.formats.folder import fill, find, read_json, read_tensors
from blindspot.model.formats.llava import ROWS, padded, read_tokenizer, with_rows
from blindspot.model.formats.tower import Tower, image_processor, read_tower
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import IMAGE
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.positions import EncoderPositions, LanguagePositions

LLAVA_LAYER = -2


def assemble(
    encoder: Path | str,
    language_model: Path | str,
    seed: int,
    positions: EncoderPositions = EncoderPositions(),  # noqa: B008  (frozen)
    language_positions: LanguagePositions = LanguagePositions(),  # noqa: B008
    connector: ConnectorSpec = ConnectorSpec(),  # noqa: B008
    image_size: int | None = None,
    drop_first_patch: bool = False,
    layer: int = LLAVA_LAYER,
    template: str | None = None,
    pad: bool = False,
) -> tuple[BlindspotForConditionalGeneration, Any]:
    """A variant with the weights of two checkpoints and a random connector, and its processor.

    Each part has the dtype of its checkpoint, the connector float32 and torch's own start values, as LLaVA's; weights
    stay mapped from their files until they are changed. The tokenizer gets ``<image>`` if it lacks it; embedding and
    head grow to a multiple of 64 by their mean, which is never the likeliest token, where they have no row for it.

    Args:
        encoder: folder or Hugging Face id of an image encoder of a registered family, its text encoder unused.
        language_model: folder or Hugging Face id of a causal language model with its tokenizer.
        seed: of the connector, and of whatever else positions and connector bring that no checkpoint has.
        positions: of the encoder; ``language_positions``: of its tokens in the language model.
        connector: what stands between the two.
        image_size: side in pixels of the square that pictures become (of a family that keeps the aspect ratio: that has
            the most patches of a picture), if not that of the checkpoint. A learned position table is resized to it
            once, bicubically in float32, as the family does at every step otherwise.
        drop_first_patch: repeat the defect of the study's public code on towers without CLS.
        layer: the encoder's layer that is read; LLaVA-1.5's by default.
        template: ``v1`` or ``plain``: the processor's chat template; by default the tokenizer's own, else ``v1``.
        pad: whether the processor pads pictures to a square with the mean colour first (see `padded`).
    """
    tower_folder, text_folder = find(encoder), find(language_model)
    family, tower = _sized_tower(tower_folder, image_size)
    language: Any = load_language(text_folder)
    with explained(f"the language model in {text_folder}", UserError):
        tokenizer = read_tokenizer(text_folder)
    if template is not None:
        tokenizer.chat_template = CHAT_TEMPLATES[template]
    _grow(language, len(tokenizer))
    config = variant_config(
        tower.config,
        language.config,
        tokenizer.convert_tokens_to_ids(IMAGE),
        layer,
        "default" if drop_first_patch else family.feature_select_strategy,
        positions,
        language_positions,
        connector,
        tie_word_embeddings=language.config.tie_word_embeddings,
        **{key: getattr(tokenizer, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")},
    )
    for part in (config.vision_config, config.text_config):
        part.name_or_path = ""  # where this machine has a checkpoint is no part of what is made of it  # pyright: ignore
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _joined(config, family, tower, tower_folder, language)
    images = resized(image_processor(tower_folder, tower.config), image_size)
    return model, build_processor(config, tokenizer, padded(images) if pad else images)


def load_language(path_or_id: Path | str, dtype: Any = "auto") -> PreTrainedModel:
    """A causal language model with its weights, from safetensors if there are any; never runs code from the folder.

    Llava reads logits off the last hidden states with a plain matrix. A model that multiplies them after that is
    refused. Gemma 2 squashes them between -30 and 30: Llava leaves that out, which changes no greedy answer but
    probabilities of logits that are far out.

    Args:
        path_or_id: a folder, or a Hugging Face id, which is downloaded unless it is in the cache.
        dtype: of the weights; "auto" takes the config's.
    """
    folder = find(path_or_id)

    def refused(why: object) -> UserError:
        return UserError(f"{folder} is no language model for a variant: {why}")

    try:
        values = read_json(folder / "config.json")
        kind = values.get("model_type")
        if kind not in CONFIG_MAPPING:
            custom = "; it needs code of its own, which is never run" if values.get("auto_map") else ""
            raise UserError(f"transformers knows no model_type {kind!r}{custom}")
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except UserError as error:
        raise refused(error) from error
    except Exception as error:  # what a damaged config makes transformers raise has no common base
        raise refused(f"its config.json is damaged ({error})") from error
    if config.get_text_config() is not config:
        raise refused(f"{kind} reads more than text; name a language model of text alone")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or not getattr(config, "is_decoder", True):
        raise refused(f"{kind} does not predict the next token of a text")
    for key in ("logit_scale", "logits_scaling"):
        if getattr(config, key, None) not in (None, 1.0):
            raise refused(f"{kind} multiplies its logits ({key}), and Llava does not")
    with explained(f"cannot open the language model in {folder}", UserError):
        model = fill(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, read_tensors(folder), folder, dtype)
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise refused("the head of this language model has a bias, and Llava's has none")
    return model


def position_table(encoder: Path | str, image_size: int | None = None) -> dict[str, Tensor]:
    """The learned position table of an image encoder's checkpoint, under its name in a variant; empty if it has none.

    Arguments as `assemble`'s.
    """
    family, tower = _sized_tower(find(encoder), image_size)
    return {f"model.vision_tower.{name}": tower.tensors[name] for name in _table_names(family, tower)}


def resized(processor: Any, image_size: int | None) -> Any:
    """An image processor whose squares have another side; the margin around a crop stays in proportion."""
    if image_size is None:
        return processor
    if hasattr(processor, "patch_size"):
        processor.max_num_patches = (image_size // processor.patch_size) ** 2
        return processor
    values = processor.to_dict()
    square = {"height": image_size, "width": image_size}
    size = square
    if values.get("do_center_crop"):
        crop = values["crop_size"]
        size = dict(values["size"])
        if "shortest_edge" in size:
            size = {"shortest_edge": round(image_size * (size["shortest_edge"] / crop["height"]))}
        else:
            size = {side: round(image_size * size[side] / crop[side]) for side in square}
        values["crop_size"] = square
    return type(processor).from_dict({**values, "size": size})


def _sized_tower(folder: Path, image_size: int | None) -> tuple[Encoder, Tower]:
    """The tower in ``folder``, its table resized to pictures of this size; a row for CLS stays as it is."""
    tower = read_tower(folder, {})
    family, config = detect(tower.config), tower.config
    if image_size is None or family.variable_resolution or image_size == config.image_size:
        return family, tower
    side = image_size // config.patch_size
    if not side:
        raise UserError(f"image_size {image_size} is smaller than a patch of {folder} ({config.patch_size} px)")
    tensors = dict(tower.tensors)
    for name in _table_names(family, tower):  # of rows, or of (1, rows)
        table = tensors[name]
        rows_nd = table.reshape(-1, table.shape[-1])
        old = int(len(rows_nd) ** 0.5)
        prefix_pd, patches_nd = rows_nd.split([len(rows_nd) - old * old, old * old])
        grid_1dhw = patches_nd.float().T.unflatten(1, (old, old))[None]
        new_1dhw = F.interpolate(grid_1dhw, size=(side, side), mode="bicubic", align_corners=False)
        resized_nd = torch.cat([prefix_pd, new_1dhw.flatten(2)[0].T.to(table.dtype)])
        tensors[name] = resized_nd.reshape(*table.shape[:-2], *resized_nd.shape)
    config.image_size = image_size
    return family, Tower(config, tensors)


def _table_names(family: Encoder, tower: Tower) -> list[str]:
    names = (family.table_at, f"{family.table_at}.weight") if family.table == "learned" else ()
    return [name for name in tower.tensors if name in names]


def _grow(language: Any, tokens: int) -> None:
    """Give the embedding and the head a row for every token that the tokenizer knows: their mean."""
    if tokens <= language.config.vocab_size:
        return
    language.config.vocab_size = -(-tokens // ROWS) * ROWS
    embedding, head = language.get_input_embeddings(), language.get_output_embeddings()
    tied = head.weight is embedding.weight
    embedding.weight = nn.Parameter(with_rows(embedding.weight.detach(), language.config.vocab_size))
    if tied:
        head.weight = embedding.weight
    else:
        head.weight = nn.Parameter(with_rows(head.weight.detach(), language.config.vocab_size))


def _joined(
    config: Any, family: Encoder, tower: Tower, folder: Path, language: Any
) -> BlindspotForConditionalGeneration:
    with explained(f"cannot open the image encoder in {folder}", UserError):
        vision = fill(family.class_of(str(tower.config.model_type)), tower.config, tower.tensors, folder)
    with torch.device("meta"):
        model = BlindspotForConditionalGeneration(config)
    body: Any = model.model
    body.vision_tower, body.language_model = vision, language.base_model
    body.multi_modal_projector = connectors.build(body.parts.connector, config)
    model.lm_head.weight = language.get_output_embeddings().weight
    if hasattr(body, "image_newline"):
        width = language.config.hidden_size
        body.image_newline = nn.Parameter(torch.randn(width) / width**0.5)
    body.attach_positions()
    return model.eval()
