"""From what a user names to a checkpoint folder and its config."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from blindspot.errors import UserError
from blindspot.files import parse_json
from blindspot.model.formats.weights import has_weights

TEXT_FILES = ("*.json", "*.txt", "*.jinja", "tokenizer.model")

BACKEND = "pil"
"""Of image processors. Left to itself transformers takes torchvision's where that is installed, whose pixels differ."""


def find(path_or_id: Path | str, trust_remote_code: bool = False) -> Path:
    """The folder of a checkpoint: the path if it exists, else a Hugging Face id, from the cache or downloaded.

    Raises:
        UserError: if it is neither, or the folder holds no model.
    """
    path = Path(path_or_id)
    if path.exists() or path.is_absolute() or str(path_or_id).startswith((".", "~")):
        return _checked(path)
    folder = cached(str(path_or_id))
    if folder is not None and has_weights(folder):
        return folder
    return _checked(_download(str(path_or_id), trust_remote_code))


def cached(identity: str) -> Path | None:
    """The folder of a Hugging Face id in the local cache, or None."""
    try:
        return Path(snapshot_download(identity, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        UserError: if it does not.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} is not a JSON file ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path.name} holds a {type(value).__name__}, not an object with keys")
    return value


def _checked(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    found = sorted(path.name for path in (folder / "models").glob("*")) if (folder / "models").is_dir() else []
    hint = f"; it is a run folder, name one of its models, e.g. {folder / 'models' / found[0]}" if found else ""
    raise UserError(f"{folder} is not a model folder (it has no config.json){hint}")


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
