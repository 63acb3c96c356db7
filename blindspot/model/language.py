"""A language model by folder or Hugging Face id."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from blindspot.errors import UserError
from blindspot.model.formats.folder import find, read_json
from blindspot.model.formats.strict import fill
from blindspot.model.formats.weights import read_tensors

SCALES = ("logit_scale", "logits_scaling")


def language_config(path_or_id: Path | str) -> PreTrainedConfig:
    """The config of a causal language model, for `build_variant`.

    Llava reads logits off the last hidden states with a plain matrix. A model that multiplies them after that is
    refused. Gemma 2 squashes them between -30 and 30: Llava leaves that out, which changes no greedy answer but
    probabilities of logits that are far out.

    Raises:
        UserError: if there is no model, or it is none of text alone that predicts the next token, needs code of its
            own, or has a head that Llava has not.
    """
    return _config(find(path_or_id))


def load_language(path_or_id: Path | str, dtype: Any = "auto") -> PreTrainedModel:
    """A causal language model with its weights, from safetensors if there are any; never runs code from the folder.

    Args:
        path_or_id: a folder, or a Hugging Face id, which is downloaded unless it is in the cache.
        dtype: of the weights; "auto" takes the config's.

    Raises:
        UserError: as `language_config`, or if weights are missing, damaged, too many or of the wrong shape.
    """
    folder = find(path_or_id)
    config = _config(folder)
    try:
        model = fill(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, read_tensors(folder), folder, dtype)
    except UserError as error:
        raise UserError(f"cannot open the language model in {folder}: {error}") from error
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise _refused(folder, "the head of this language model has a bias, and Llava's has none")
    return model


def _config(folder: Path) -> PreTrainedConfig:
    try:
        values = read_json(folder / "config.json")
        kind = values.get("model_type")
        if kind not in CONFIG_MAPPING:
            custom = "; it needs code of its own, which is never run" if values.get("auto_map") else ""
            raise UserError(f"transformers knows no model_type {kind!r}{custom}")
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except UserError as error:
        raise _refused(folder, str(error)) from error
    except Exception as error:  # what a damaged config makes transformers raise has no common base
        raise _refused(folder, f"its config.json is damaged ({error})") from error
    if config.get_text_config() is not config:
        raise _refused(folder, f"{kind} reads more than text; name a language model of text alone")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or not getattr(config, "is_decoder", True):
        raise _refused(folder, f"{kind} does not predict the next token of a text")
    scaled = [key for key in SCALES if getattr(config, key, None) not in (None, 1.0)]
    if scaled:
        raise _refused(folder, f"{kind} multiplies its logits ({scaled[0]}), and Llava does not")
    return config


def _refused(folder: Path, why: str) -> UserError:
    return UserError(f"{folder} is no language model for a variant: {why}")
