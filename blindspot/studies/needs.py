"""What a study reads, what of it is here, and how to get the rest. Looks at the disk only, never at the network."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from blindspot.files import parse_json
from blindspot.studies.arms import STAGES, Arm
from blindspot.studies.datasets import Source, sources
from blindspot.studies.sizes import EncoderSize, LanguageSize, local_folder

_TOKENIZERS = ("tokenizer.model", "tokenizer.json")
_CACHE = "Hugging Face cache"


@dataclass(frozen=True)
class Need:
    """One thing that must be there before training.

    Attributes:
        what: a checkpoint, or paths in the data folder.
        kind: ``checkpoint`` or ``data``.
        where: the folder that it is in, or belongs in.
        missing: what of it is not there; empty if it is all there.
        size: bytes of the download, about; 0 if unknown.
        commands: shell commands that get it; empty where it is the user's own.
    """

    what: str
    kind: str
    where: str
    missing: str
    size: float
    commands: tuple[str, ...]

    @property
    def here(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def needs(arms: Iterable[Arm], data_root: Path | None, stages: Sequence[str] = STAGES) -> list[Need]:
    """What some arms need, each thing once: the language models, the encoders, then the data.

    Args:
        arms: the arms.
        data_root: the data folder; None leaves unsaid where it is, and everything in it is missing.
        stages: whose data count.
    """
    arms = list(arms)
    languages = {arm.point.language_model: arm.language_size for arm in arms}
    encoders = {arm.point.encoder: arm.encoder_size for arm in arms}
    trained = [stage for arm in arms for name, stage in arm.own_stages.items() if name in stages]
    wanted = dict.fromkeys(source for stage in trained for source in sources(stage.data))
    found = [_checkpoint(name, size) for name, size in {**languages, **encoders}.items()]
    return found + [_data(source, data_root) for source in wanted]


def _checkpoint(name: str, size: EncoderSize | LanguageSize) -> Need:
    folder = local_folder(name)
    own = Path(name).expanduser().is_dir()
    missing = _lacking(folder, isinstance(size, LanguageSize)) if folder else "all of it"
    where = str(folder) if own else _CACHE
    return Need(name, "checkpoint", where, missing, size.download, () if own else (_fetch(name),))


def _fetch(name: str) -> str:
    """The weights for torch alone: some repositories hold them for other frameworks, too."""
    return f'hf download {name} --exclude "*.h5" "*.msgpack"'


def _lacking(folder: Path, reads_text: bool) -> str:
    """What a checkpoint folder lacks: weights, some shards of them, or what its tokenizer needs."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{whole}.index.json"
        if index.is_file():
            try:
                shards = set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError):
                return f"a readable {index.name}"
            absent = sorted(shard for shard in shards if not (folder / str(shard)).is_file())
            if absent:
                return f"{len(absent)} of {len(shards)} shards: {', '.join(map(str, absent))}"
            break
        if (folder / whole).is_file():
            break
    else:
        return "weights"
    return "" if not reads_text or any((folder / name).is_file() for name in _TOKENIZERS) else "tokenizer"


def _data(source: Source, root: Path | None) -> Need:
    folder = root or Path("DATA")
    absent = [path for path in source.paths if not _filled(folder / path) or not (root or Path(path).is_absolute())]
    commands = tuple(command.replace("{data}", shlex.quote(str(folder))) for command in source.commands)
    what = ", ".join(source.paths)
    return Need(what, "data", str(folder), ", ".join(absent), source.size, commands)


def _filled(path: Path) -> bool:
    """Whether a path is a file with something in it, or a folder that is not empty."""
    if path.is_dir():
        return any(path.iterdir())
    return path.is_file() and path.stat().st_size > 0
