"""Opening a model and carrying out diagnostics on it one after the other, each kept as soon as it is done."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blindspot.diagnostics.base import Budget, Findings, Table
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.registry import run_of
from blindspot.errors import UserError
from blindspot.evaluation.adapters import adapter_of
from blindspot.files import write_json, write_via
from blindspot.model.formats.folder import read_json
from blindspot.model.load import load
from blindspot.text import DIGITS


def open_vlm(model: Path | str, device: str = "cpu") -> HookedVLM:
    """The model of a folder or a Hugging Face id, ready to be diagnosed.

    Args:
        model: any that `blindspot.load` opens.
        device: where it runs; ``auto`` is a GPU if there is one.
    """
    opened, processor = load(model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        opened = opened.to(device)
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        raise UserError(f"cannot use device {device}: {str(error).splitlines()[0]}") from error
    return HookedVLM(opened, processor, adapter_of(opened.config.model_type))


def claim(folder: Path, model: str, weights: str, names: Sequence[str], budget: Budget) -> list[str]:
    """Say in ``folder/diagnosis.json`` what is diagnosed there, and which of the names are left to do.

    A folder that holds another diagnosis is refused; ``weights`` is their hash, as a model that is trained again behind
    the same path is another one.
    """
    path = folder / "diagnosis.json"
    wanted = {"model": model, "weights": weights, "stimuli": budget.stimuli, "seed": budget.seed}
    if budget.photo is not None:
        wanted |= {"stimuli": None, **budget.photo.said}
    found = read_json(path) if path.exists() else wanted
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UserError(
                f"{folder} holds a diagnosis with {key} {found.get(key)}, not {value}; choose another --out"
            )
    write_json(path, wanted)
    return [name for name in names if not (folder / f"{name}.json").exists()]


def diagnose(
    vlm: HookedVLM, names: Sequence[str], budget: Budget, folder: Path, told: Callable[[str, int, int], None]
) -> None:
    """Run diagnostics, and leave ``<name>.json`` (tables) and ``<name>.npz`` (pictures) of each in ``folder``.

    One that has left its file there is not repeated. One that the model does not allow leaves an empty table, whose
    note says why, and the others go on; of a photo it is an error. ``told`` is the name of the diagnostic, how far it
    is, and of how much.
    """
    for name in names:
        if (folder / f"{name}.json").exists():
            continue
        told(name, 0, 1)
        try:
            found: Findings = run_of(name)(vlm, budget, partial(told, name))
        except UserError as error:
            if budget.photo is not None:  # and with it the user's own words
                raise
            found = Findings([Table(name, "Left out", [], (str(error),))])
        write_via(folder / f"{name}.npz", partial(_save, found.pictures))
        tables = [{"name": t.name, "title": t.title, "notes": t.notes, "rows": t.rows} for t in found.tables]
        write_json(folder / f"{name}.json", {"diagnostic": name, "tables": _rounded(tables)})


def _save(arrays: dict[str, Any], path: Path) -> None:
    with path.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)


def _rounded(value: Any) -> Any:
    """A JSON value of what may hold numpy's numbers, and None for what is not finite."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if not np.isfinite(value) else float(f"{value:.{DIGITS}g}") + 0.0
    return value.item() if isinstance(value, np.generic) else value
