"""A model for the Hugging Face Hub: found in what a run left, checked, stripped of what is this machine's, uploaded."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from blindspot.errors import UserError, explained, one_of
from blindspot.files import parse_json
from blindspot.reporting.run import RunPlan, RunStep, as_made, load_plan
from blindspot.text import clean

RECORD = "run.json"
FILES = re.compile(
    r"(config|generation_config|processor_config|preprocessor_config|tokenizer|tokenizer_config|special_tokens_map"
    r"|added_tokens|vocab|chat_template|model\.safetensors\.index)\.json"
    r"|chat_template\.jinja|merges\.txt|tokenizer\.model|model(-\d+-of-\d+)?\.safetensors"
)
"""Names of what is published of a model folder, and nothing else."""
WEIGHTS = ".safetensors"
LOCAL = {"_name_or_path", "name_or_path", "vocab_file", "merges_file", "tokenizer_file", "special_tokens_map_file"}
"""Keys of configs that say where on a machine something came from."""


@dataclass(frozen=True)
class PublishedModel:
    """A model folder, and what made it."""

    folder: Path  # a checkpoint of transformers' ``llava`` or of Blindspot's own type
    run: Path | None = None  # like ``plan``, ``arm`` and ``seed`` of a study; None or empty otherwise
    plan: RunPlan | None = None
    arm: str = ""
    seed: int = 0
    made_in: Path | None = None  # the folder of the study's step, whose ``done.json`` has the checksums
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of a training run that is none of a study's, the ``run.json`` of each stage."""

    @property
    def config(self) -> dict[str, Any]:
        """Its ``config.json``."""
        return _json(self.folder / "config.json")

    @property
    def plain(self) -> bool:
        """Whether transformers opens it without Blindspot."""
        return self.config["model_type"] == "llava"

    def files(self) -> list[Path]:
        """What of the folder is published; refused if a study's step made it otherwise."""
        found = sorted(path for path in self.folder.iterdir() if FILES.fullmatch(path.name) and path.is_file())
        return found if self.made_in is None else [as_made(path, self.made_in) for path in found]


def find_model(path: Path, arm: str | None = None, seed: int | None = None) -> PublishedModel:
    """The model in a study's run folder, of an arm from a seed where it has several; in a training run; or a folder."""
    if (path / "plan.json").is_file():
        return _checked(_of_study(path, arm, seed))
    runs = sorted(path.glob("*-seed*/instruct/model")) if path.is_dir() else []
    if runs and not (path / "config.json").is_file():
        return _checked(_trained(_chosen(runs, arm, seed, path)))
    if arm is not None or seed is not None:
        raise UserError(f"--arm and --seed choose a model of a study's run folder, and {path} is none; leave them out")
    real = path.resolve()
    if real.parent.parent.name == "steps" and (real.parents[2] / "plan.json").is_file():
        run, name = real.parents[2], f"steps/{real.parent.name}"
        plan = load_plan(run)
        if step := next((step for step in plan.steps if step.folder == name), None):
            return _checked(_of_step(run, plan, step))
    inside = (path, path / "model", path / "instruct" / "model")
    return _checked(_trained(next((each for each in inside if (each / "config.json").is_file()), path)))


def _of_study(run: Path, arm: str | None, seed: int | None) -> PublishedModel:
    plan = load_plan(run)
    steps = [step for step in plan.steps if step.kind == "instruct" and step.arm is not None]
    arms = list(dict.fromkeys(str(step.arm) for step in steps))
    if arm is not None:
        one_of(arm, arms, "--arm", "arm with a model of its own")
    elif not arms:
        raise UserError(f"{run} trained no model; name the run of a study with arms, or a model folder")
    elif len(arms) > 1:
        raise UserError(f"{run} has several arms; name one with --arm: {', '.join(arms)}")
    steps = [step for step in steps if arm in (None, step.arm)]
    seeds = [step.seed for step in steps]
    if seed is None and len(seeds) > 1:
        raise UserError(f"{run} has several models of {steps[0].arm}; name one with --seed: {str(seeds)[1:-1]}")
    chosen = [step for step in steps if seed in (None, step.seed)]
    if not chosen:
        raise UserError(f"--seed {seed}: {steps[0].arm} has {str(seeds)[1:-1]}")
    return _of_step(run, plan, chosen[0])


def _of_step(run: Path, plan: RunPlan, step: RunStep) -> PublishedModel:
    folder = run / step.folder
    if not (folder / "done.json").is_file():
        raise UserError(f"{step.id} of {run} is not done; the `blindspot study` command that made the run goes on")
    return PublishedModel(folder / "model", run, plan, step.arm or "", step.seed or 0, folder)


def _chosen(models: list[Path], arm: str | None, seed: int | None, run: Path) -> Path:
    """Of the models that ``blindspot train STUDY --arm`` left."""
    names = {model.parent.parent.name: model for model in models}
    fits = {
        name: model
        for name, model in names.items()
        if arm in (None, name.rpartition("-seed")[0]) and str(seed) in ("None", name.rpartition("-seed")[2])
    }
    if len(fits) != 1:
        raise UserError(f"{run} has {'several' if fits else 'other'} models; name one with --arm and --seed: "
                        f"{', '.join(fits or names)}")  # fmt: skip
    return next(iter(fits.values()))


def _trained(folder: Path) -> PublishedModel:
    """With the records of the training run that it lies in, if it does."""
    records = {}
    for stage in (folder.parent.parent / "connector", folder.parent):
        if folder.name == "model" and (stage / RECORD).is_file():
            record = _json(stage / RECORD)
            records[str(record.get("stage", stage.name))] = record
    return PublishedModel(folder, records=records)


def _checked(model: PublishedModel) -> PublishedModel:
    folder = model.folder
    with explained(f"{folder} is not a model folder"):
        names = {path.name for path in folder.iterdir() if FILES.fullmatch(path.name)}
        config = model.config
    known = config.get("model_type") in ("llava", "blindspot") and {"text_config", "vision_config"} <= config.keys()
    asks = "tokenizer_config.json" in names and names & {"processor_config.json", "preprocessor_config.json"}
    if not known or not asks:
        raise UserError(f"{folder} is no checkpoint that its card could say how to open; first write one with: "
                        f"blindspot export {folder} OUT")  # fmt: skip
    if not any(name.endswith(WEIGHTS) for name in names):
        raise UserError(f"{folder} has no weights in safetensors; a study's --keep may have removed them")
    return model


def _json(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return value


def fill(model: PublishedModel, card: str, folder: Path, link: bool = False) -> None:
    """Put what is published of a model and its card into an empty folder; weights as links where ``link`` says so."""
    for path in model.files():
        target = folder / path.name
        if path.suffix == WEIGHTS and link:
            target.symlink_to(path.resolve())
        elif path.suffix == ".json" and (without := _impersonal(held := _json(path))) != held:
            target.write_text(json.dumps(without, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(path, target)
    (folder / "README.md").write_text(card, encoding="utf-8")


def is_local(value: Any) -> bool:
    """Whether a value of a config is a path of this machine."""
    absolute = isinstance(value, str) and any(
        path.is_absolute() and len(path.parts) > 2 for path in (PurePosixPath(value), PureWindowsPath(value))
    )
    return absolute or (isinstance(value, str) and value.startswith(("~/", "./", "../")))


def _impersonal(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _impersonal(one) for key, one in value.items() if key not in LOCAL and not is_local(one)}
    return [_impersonal(one) for one in value] if isinstance(value, list) else value


def refuse_repository(name: str, uploads: bool) -> None:
    """Refuse what is no ``ORGANISATION/NAME`` on the Hub, and to upload anything without a token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    with explained(f"REPO {clean(name, 60)}", HFValidationError):
        validate_repo_id(name)
    if name.count("/") != 1:
        raise UserError(f"REPO {clean(name, 60)}: name it as on the Hub, ORGANISATION/NAME or USER/NAME")
    if uploads and get_token() is None:
        raise UserError("no token of the Hugging Face Hub here; log in with `hf auth login`, or write the files --to a "
                        "folder")  # fmt: skip


def upload(folder: Path, repository: str, private: bool, message: str, tell: Callable[[str], object]) -> str:
    """Commit a folder to a model repository of the Hub, which is made where there is none; returns its address.

    The token is huggingface_hub's own (``hf auth login``, or $HF_TOKEN) and is in no message.
    """
    import httpx2
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api, status = HfApi(), None
    try:
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        tell(f"uploading to {url}")
        old = ["model*.safetensors", "model.safetensors.index.json"]  # weights that this model may not have
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message, delete_patterns=old)
        return str(url)
    except OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE is set; unset it, or write the files --to a folder") from error
    except HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or str(error)
    except ValueError as error:  # what the Hub says of the card's metadata
        raise UserError(f"the Hub refused the card of {repository} ({clean(str(error), 200)})") from error
    except (OSError, httpx2.HTTPError) as error:
        said = str(error) or type(error).__name__
    said = clean(" ".join(said.replace(get_token() or "\0", "(token)").split()), 200)
    advice = {
        None: f"{constants.ENDPOINT} cannot be reached ({said}); repeat the command, or write the files --to a folder",
        401: f"the Hub does not know the token ({said}); log in with `hf auth login`",
        403: f"the token may not write to {repository} ({said}); take one that may, or another REPO",
        404: f"there is no {repository.partition('/')[0]} on the Hub that the token may write to ({said})",
    }
    raise UserError(advice.get(status, f"the Hub refused {repository}: {status}, {said}"))
