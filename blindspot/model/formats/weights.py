"""Tensors of a checkpoint folder, by name, without running anything that a file holds.

Both readers map files into memory: a tensor's bytes are read when they are used, so that a checkpoint of many shards
never lies in memory as a whole.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from blindspot.errors import UserError
from blindspot.files import inside, parse_json

Tensors = dict[str, Tensor]

WHOLE = ("model.safetensors", "pytorch_model.bin")  # in each pair, what is tried first
INDEXED = tuple(f"{name}.index.json" for name in WHOLE)


def read_tensors(folder: Path) -> Tensors:
    """Every tensor of the checkpoint in ``folder``: safetensors if there are any, else ``pytorch_model*.bin``.

    Raises:
        UserError: if there are no weights, a shard is missing or damaged, an index names a tensor that no shard holds,
            or a ``.bin`` file holds pickled code (which is never run).
    """
    for whole, indexed in zip(WHOLE, INDEXED, strict=True):
        if (folder / indexed).is_file():
            return _read_shards(folder / indexed)
        if (folder / whole).is_file():
            return read_file(folder / whole)
    hint = "; mm_projector.bin alone is a connector of stage 1" if (folder / "mm_projector.bin").is_file() else ""
    raise UserError(f"it has no weights: none of {', '.join((*WHOLE, *INDEXED))}{hint}")


def has_weights(folder: Path) -> bool:
    """Whether ``folder`` holds a file or an index that `read_tensors` would open."""
    return any((folder / name).is_file() for name in (*WHOLE, *INDEXED))


def read_file(path: Path) -> Tensors:
    """Every tensor of one ``.safetensors`` or ``.bin`` file.

    Raises:
        UserError: if the file is damaged or holds anything but tensors.
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_bin(path)


def listed(names: Any) -> str:
    """At most five names in order, and how many there are."""
    names = sorted(names)
    more = f" ({len(names)} in all)" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


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


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path.name} is damaged ({error}); copy it anew") from error


def _read_bin(path: Path) -> Tensors:
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
