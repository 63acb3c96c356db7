"""A checkpoint folder: found by what a user names, read without running anything that it holds, filled into a model.

Files of weights are mapped into memory: a tensor's bytes are read when they are used, so that a checkpoint of many
shards never lies in memory as a whole.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import logging

from blindspot.errors import UserError
from blindspot.files import inside, parse_json

Tensors = dict[str, Tensor]

WHOLE = ("model.safetensors", "pytorch_model.bin")  # in each pair, what is tried first
INDEXED = tuple(f"{name}.index.json" for name in WHOLE)
TEXT_FILES = ("*.json", "*.txt", "*.jinja", "tokenizer.model")

BACKEND = "pil"
"""Of image processors. Left to itself transformers takes torchvision's where that is installed, whose pixels differ."""


def find(path_or_id: Path | str, trust_remote_code: bool = False) -> Path:
    """The folder of a checkpoint: the path if it exists, else a Hugging Face id, from the cache or downloaded."""
    path = Path(path_or_id)
    if path.exists() or path.is_absolute() or str(path_or_id).startswith((".", "~")):
        folder = path
    else:
        held = cached(str(path_or_id))
        if held is not None and any((held / name).is_file() for name in (*WHOLE, *INDEXED)):
            return held
        folder = _download(str(path_or_id), trust_remote_code)
    if (folder / "config.json").is_file():
        return folder
    found = sorted((folder / "models").glob("*")) if (folder / "models").is_dir() else []
    hint = f"; it is a run folder, name one of its models, e.g. {found[0]}" if found else ""
    raise UserError(f"{folder} is not a model folder (it has no config.json){hint}")


def cached(identity: str) -> Path | None:
    """The folder of a Hugging Face id in the local cache, or None."""
    try:
        return Path(snapshot_download(identity, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _download(identity: str, trust_remote_code: bool) -> Path:
    code = ("*.py",) if trust_remote_code else ()
    try:
        files = [file.rfilename for file in HfApi().model_info(identity, timeout=10).siblings or []]
        weights = "*.safetensors" if any(name.endswith(".safetensors") for name in files) else "*.bin"
        return Path(snapshot_download(identity, allow_patterns=[*TEXT_FILES, *code, weights, "mm_projector.bin"]))
    except HFValidationError as error:
        raise UserError(f"{identity} is neither a folder here nor a Hugging Face id") from error
    except Exception as error:  # what a network makes the libraries raise has no common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{identity} is no folder here, is not in the local cache and cannot be had: {reason}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} is not a JSON file ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path.name} holds a {type(value).__name__}, not an object with keys")
    return value


def read_tensors(folder: Path) -> Tensors:
    """Every tensor of the checkpoint in ``folder``: safetensors if there are any, else ``pytorch_model*.bin``."""
    for whole, indexed in zip(WHOLE, INDEXED, strict=True):
        if (folder / indexed).is_file():
            return _read_shards(folder / indexed)
        if (folder / whole).is_file():
            return read_file(folder / whole)
    hint = "; mm_projector.bin alone is a connector of stage 1" if (folder / "mm_projector.bin").is_file() else ""
    raise UserError(f"it has no weights: none of {', '.join((*WHOLE, *INDEXED))}{hint}")


def _read_shards(index: Path) -> Tensors:
    try:
        places: dict[str, str] = parse_json(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()), key=str)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{index.name} is no index of weights ({type(error).__name__}: {error})") from error
    if foreign := [shard for shard in shards if not inside(shard)]:
        raise UserError(f"{index.name} names {foreign[0]!r}, which is no file in its folder; get it anew")
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise UserError(f"it lacks shards that {index.name} names: {listed(absent)}; copy them too")
    tensors: Tensors = {}
    for shard in shards:
        tensors |= read_file(index.parent / shard)
    lost = set(places) - set(tensors)
    if lost:
        raise UserError(f"{index.name} names tensors that no shard holds: {listed(lost)}; copy the checkpoint anew")
    return tensors


def read_file(path: Path) -> Tensors:
    """Every tensor of one ``.safetensors`` or ``.bin`` file."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path.name} is damaged ({error}); copy it anew") from error
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what a damaged archive makes torch raise has no common base
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            what = f"holds pickled code ({code[1]}), which is never run; get the checkpoint as safetensors"
        else:
            what = "is damaged or no file of tensors; get the checkpoint anew"
        raise UserError(f"{path.name} {what}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path.name} is no file of tensors by name")
    return state


def listed(names: Any) -> str:
    """At most five names in order, and how many there are."""
    names = sorted(names)
    more = f" ({len(names)} in all)" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def fill(model_class: Any, config: Any, tensors: Tensors, folder: Path, dtype: Any = "auto") -> Any:
    """A model of ``config`` with exactly ``tensors``, ready to answer.

    Args:
        tensors: under the names that transformers knows, today's or an earlier version's.
        folder: where they come from; its ``generation_config.json`` is read too.
        dtype: as transformers': "auto" takes the config's, and without one that of the tensors.
    """
    with quietly():
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check` refuses them, in words
        )
        check(info)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    model.config.name_or_path = str(folder)
    return model.eval()


def check(info: dict[str, Any]) -> None:
    """Refuse a model that transformers could not fill exactly, naming the first five tensors and how many there are.

    Args:
        info: what ``from_pretrained(output_loading_info=True, ignore_mismatched_sizes=True)`` reports.
    """
    shapes = {name: (held, wanted) for name, held, wanted in info["mismatched_keys"]}
    for name, (held, wanted) in shapes.items():
        if name.endswith("multi_modal_projector.linear_1.weight") and held[0] == wanted[0]:
            raise UserError(
                f"its connector reads features of width {held[1]}, and its image encoder gives {wanted[1]} ({name}); "
                "they do not belong together"
            )
    if shapes:
        words = [
            f"{name} ({' x '.join(map(str, held))}, not {' x '.join(map(str, wanted))})"
            for name, (held, wanted) in shapes.items()
        ]
        raise UserError(f"its weights have other shapes than its config says: {listed(words)}")
    if info["missing_keys"]:
        raise UserError(f"it lacks weights: {listed(info['missing_keys'])}; copy or train it anew")
    if info["unexpected_keys"]:
        raise UserError(f"it has weights that its config has no place for: {listed(info['unexpected_keys'])}")
    if info["error_msgs"]:
        raise UserError(str(info["error_msgs"][0]))


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' reports off the terminal while it loads: what matters in them becomes an error."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
