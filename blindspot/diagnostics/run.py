"""Opening a model and carrying out diagnostics on it one after the other, each kept as soon as it is done."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blindspot.diagnostics.base import Budget, Findings, Report, Table
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.registry import run_of
from blindspot.errors import UserError
from blindspot.evaluation.adapters import adapter_of
from blindspot.files import write_json, write_via
from blindspot.model.formats.folder import read_json
from blindspot.model.load import load

DIGITS = 6
Told = Callable[[str, int, int], None]


def open_vlm(model: Path | str, device: str = "cpu") -> HookedVLM:
    """The model of a folder or a Hugging Face id, ready to be diagnosed.

    Args:
        model: any that `blindspot.load` opens.
        device: where it runs; ``auto`` is a GPU if there is one.

    Raises:
        UserError: if it cannot be opened, its parts cannot be told apart, or it does not fit on the device.
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

    Args:
        folder: of the diagnosis.
        model: its path or id.
        weights: their hash: a model that is trained again behind the same path is another one.
        names: of `registry.DIAGNOSTICS`.
        budget: how much each may look at.

    Raises:
        UserError: if the folder holds another diagnosis, or its record is damaged.
    """
    path = folder / "diagnosis.json"
    wanted = {"model": model, "weights": weights, "stimuli": budget.stimuli, "seed": budget.seed}
    found = read_json(path) if path.exists() else wanted
    for key, value in wanted.items():
        if found.get(key) != value:
            raise UserError(
                f"{folder} holds a diagnosis with {key} {found.get(key)}, not {value}; choose another --out"
            )
    write_json(path, wanted)
    return [name for name in names if not (folder / f"{name}.json").exists()]


def diagnose(vlm: HookedVLM, names: Sequence[str], budget: Budget, folder: Path, told: Told) -> None:
    """Run diagnostics, and leave ``<name>.json`` (tables) and ``<name>.npz`` (pictures) of each in ``folder``.

    One that has left its file there is not repeated. One that the model does not allow leaves an empty table, whose
    note says why, and the others go on.

    Args:
        vlm: the model.
        names: of `registry.DIAGNOSTICS`.
        budget: how much each may look at.
        folder: where to write.
        told: the name of the diagnostic, how far it is, and of how much.

    Raises:
        UserError: if a file cannot be written.
    """
    for name in names:
        if not (folder / f"{name}.json").exists():
            told(name, 0, 1)
            _write(folder, name, _found(vlm, name, budget, lambda done, of, name=name: told(name, done, of)))


def _found(vlm: HookedVLM, name: str, budget: Budget, report: Report) -> Findings:
    try:
        return run_of(name)(vlm, budget, report)
    except UserError as error:
        return Findings([Table(name, "Left out", [], (str(error),))])


def _write(folder: Path, name: str, found: Findings) -> None:
    arrays = {key: np.asarray(value) for key, value in found.pictures.items()}
    write_via(folder / f"{name}.npz", lambda temporary: _save(temporary, arrays))
    tables = [
        {"name": table.name, "title": table.title, "notes": list(table.notes), "rows": list(table.rows)}
        for table in found.tables
    ]
    write_json(folder / f"{name}.json", {"diagnostic": name, "tables": _rounded(tables)})


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if not np.isfinite(value) else float(f"{value:.{DIGITS}g}") + 0.0
    return value.item() if isinstance(value, np.generic) else value
