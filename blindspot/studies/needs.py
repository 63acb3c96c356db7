"""What a study reads, what of it is here, and how to get the rest. Looks at the disk only, never at the network."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import is_zipfile

from blindspot.errors import UserError
from blindspot.files import bytes_below, parse_json
from blindspot.studies.arms import STAGES, Arm, expand_arms
from blindspot.studies.schema import DataSet, EvaluatedModel, Study
from blindspot.studies.sizes import CHECKPOINTS, MODELS, local_folder


class Download(NamedTuple):
    """One download: the paths that it leaves in the data folder, its bytes, about, and the shell commands that put it
    there, in which ``{data}`` stands for the data folder."""

    paths: tuple[str, ...]
    size: float
    commands: tuple[str, ...]


def _unzip(file: str, into: str) -> str:
    return f"unzip -qo {{data}}/{file} -d {{data}}/{into}"


def _zip(into: str, url: str) -> tuple[str, ...]:
    file = f"{into}_{url.rsplit('/', 1)[1]}"
    return f"curl -L -C - --create-dirs -o {{data}}/{file} {url}", _unzip(file, into)


def _hub(repository: str, more: str) -> str:
    return f"hf download {repository} --repo-type dataset --local-dir {{data}}{more}"


_PRETRAIN = "LLaVA-Pretrain/images"
_GENOME = "https://cs.stanford.edu/people/rak248/VG_100K_2"
_TEXTVQA = "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip"
SOURCES: dict[str, tuple[Download, ...]] = {
    "llava-pretrain": (
        Download(
            ("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", _PRETRAIN),
            27.6e9,
            (_hub("liuhaotian/LLaVA-Pretrain", "/LLaVA-Pretrain"), _unzip(f"{_PRETRAIN}.zip", _PRETRAIN)),
        ),
    ),
    "llava-mix665k": (
        Download(
            ("llava_v1_5_mix665k.json",),
            1.03e9,
            (_hub("liuhaotian/LLaVA-Instruct-150K llava_v1_5_mix665k.json", ""),),
        ),
        Download(("coco/train2017",), 19e9, _zip("coco", "http://images.cocodataset.org/zips/train2017.zip")),
        Download(("gqa/images",), 22e9, _zip("gqa", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip")),
        # LLaVA's own download script no longer finds every cover (LLaVA issue 1618, pull request 1458).
        Download(("ocr_vqa/images",), 16e9, (_hub("ej2/llava-ocr-vqa", "/ocr_vqa  # then unpack to images/"),)),
        Download(("textvqa/train_images",), 7e9, _zip("textvqa", _TEXTVQA)),
        Download(
            ("vg/VG_100K", "vg/VG_100K_2"),
            15e9,
            (*_zip("vg", f"{_GENOME}/images.zip"), *_zip("vg", f"{_GENOME}/images2.zip")),
        ),
    ),
}
"""Downloads of each published set. The five image folders of mix665k are 80 GB together; the split is rough."""


@dataclass(frozen=True)
class Need:
    """One thing that must be there before training."""

    what: str  # a checkpoint, or paths in the data folder
    kind: str  # ``checkpoint`` or ``data``
    where: str  # the folder that it is in, or belongs in
    missing: str  # what of it is not there; empty if it is all there
    size: float  # bytes of the download, about; 0 if unknown
    commands: tuple[str, ...]  # shell commands that get it; empty where it is the user's own

    @property
    def here(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def downloads(data: DataSet) -> tuple[Download, ...]:
    """What must lie in the data folder for a set."""
    return SOURCES.get(data.name, (Download((data.file, data.images), 0, ()),))


def hub_datasets(data: DataSet) -> list[str]:
    """The data sets of the Hugging Face Hub that a set, where it is a published one, is downloaded from."""
    commands = [command.split() for download in downloads(data) for command in download.commands]
    return [words[2] for words in commands if words[:2] == ["hf", "download"]]


def needs(
    arms: Iterable[Arm],
    data_root: Path | None,
    stages: Sequence[str] = STAGES,
    models: Iterable[EvaluatedModel] = (),
) -> list[Need]:
    """What some arms need, each thing once: the language models, the encoders, then the data of some stages; and the
    checkpoints of models that are only evaluated.

    Without a ``data_root`` everything in it is missing.
    """
    arms, found = list(arms), list[Need]()
    languages = {arm.point.language_model: arm.language_size for arm in arms}
    encoders = {arm.point.encoder: arm.encoder_size for arm in arms}
    sizes = {name: size.download for name, size in (languages | encoders).items()}
    known = {name: size.download for name, size in MODELS.items()}
    whole = {model.model: known.get(model.model, 0.0) for model in models if not model.remote}
    for name, size in (sizes | whole).items():
        folder = local_folder(name, data_root)
        missing = _lacking(folder, name in languages or name in whole) if folder else "all of it"
        into = f" --local-dir {shlex.quote(str(data_root / CHECKPOINTS / name))}" if data_root else ""
        # The weights for torch alone: some repositories hold them for other frameworks, too.
        where, fetch = "Hugging Face cache", (f'hf download {name} --exclude "*.h5" --exclude "*.msgpack"{into}',)
        if Path(name).expanduser().is_dir():
            where, fetch = str(folder), ()
        elif data_root and (folder is None or folder.is_relative_to(data_root)):
            where = str(data_root / CHECKPOINTS / name)
        held = float(bytes_below(folder)) if folder and not missing and not size else size
        found.append(Need(name, "checkpoint", where, missing, held, fetch))
    trained = [stage.data for arm in arms for name, stage in arm.own_stages.items() if name in stages]
    root = data_root or Path("DATA")
    for source in dict.fromkeys(source for data in trained for source in downloads(data)):
        unsaid = [path for path in source.paths if data_root is None and not Path(path).is_absolute()]
        absent = [path for path in source.paths if path in unsaid or not _filled(root / path)]
        commands = tuple(command.replace("{data}", shlex.quote(str(root))) for command in source.commands)
        found.append(Need(", ".join(source.paths), "data", str(root), ", ".join(absent), source.size, commands))
    return found


def _lacking(folder: Path, reads_text: bool) -> str:
    """What a checkpoint folder lacks: weights, some shards of them, or what its tokenizer needs."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{whole}.index.json"
        if index.is_file():
            try:
                shards = set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (OSError, ValueError, KeyError, AttributeError):
                return f"a readable {index.name}"
            absent = sorted(str(shard) for shard in shards if not (folder / str(shard)).is_file())
            if absent:
                return f"{len(absent)} of {len(shards)} shards: {', '.join(absent)}"
            files = sorted(map(str, shards))
            break
        if (folder / whole).is_file():
            files = [whole]
            break
    else:
        return "weights"
    if cut := [file for file in files if not uncut(folder / file)]:
        return f"a whole {cut[0]}"
    tokenizers = ("tokenizer.model", "tokenizer.json")
    return "" if not reads_text or any((folder / name).is_file() for name in tokenizers) else "tokenizer"


def uncut(path: Path) -> bool:
    """Whether a file of weights is as long as its header says: safetensors, or torch's zip, whose end lists its files.

    Its bytes are not read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if path.suffix != ".safetensors":
                return bool(start) and (not start.startswith(b"PK") or is_zipfile(file))
            length, size = int.from_bytes(start, "little"), path.stat().st_size
            if len(start) < 8 or length > size - 8:
                return False
            header = parse_json(file.read(length))
        return size == 8 + length + max(
            (one["data_offsets"][1] for name, one in header.items() if name[:2] != "__"), default=0
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return False
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def to_download(wanted: Iterable[Need], root: Path) -> tuple[float, float]:
    """Bytes that are still to download into the data folder, and the most that this takes there: an archive and what it
    holds are there at once. What an attempt that was broken off has left is taken off."""
    downloads = most = 0.0
    for need in wanted:
        if need.here or not need.commands:
            continue
        tops = {root / Path(one).parts[0] for one in need.what.split(", ")}
        tops = {Path(need.where)} if need.kind == "checkpoint" else tops
        archives = sum(path.stat().st_size for top in tops for path in root.glob(f"{top.name}_*.zip"))
        unpacked = sum(bytes_below(top) if top.is_dir() else top.stat().st_size if top.is_file() else 0 for top in tops)
        zipped = any(command.startswith("unzip") for command in need.commands)
        downloads += max(need.size - archives - (0 if archives else unpacked), 0.0)
        most += max(need.size * (1 + zipped) - archives - unpacked, 0.0)
    return downloads, most


def _filled(path: Path) -> bool:
    """Whether a path is a file with something in it, or a folder that is not empty."""
    return any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size > 0


def fetch(study: Study, data_root: Path, tell: Callable[[str], None]) -> list[str]:
    """Download what a study needs and is not here, one thing after another. Broken off, the same call goes on.

    Args:
        study: of real size.
        data_root: the data folder; checkpoints go to ``checkpoints/NAME`` in it.
        tell: told each command before it runs.

    Returns:
        What is still missing, each with what to do.
    """
    from blindspot.benchmarks.registry import select
    from blindspot.benchmarks.sources import download

    failed: dict[str, str] = {}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # where `hf` is installed
    for need in needs(expand_arms(study), data_root, models=study.models):
        for command in () if need.here else need.commands:
            tell(command)
            if subprocess.run(["bash", "-c", command], env={**os.environ, "PATH": path}, check=False).returncode:
                failed[need.what] = f"`{command}` failed"
                break
    for benchmark in select(study.asked):
        try:
            if download.locate(benchmark, data_root) is None:
                tell(f"blindspot data get {benchmark.name} --data {shlex.quote(str(data_root))}")
                download.get(benchmark, data_root)
        except UserError as error:
            failed[benchmark.name] = str(error)
    left = [need for need in needs(expand_arms(study), data_root, models=study.models) if not need.here]
    said = {need.what: failed.get(need.what, f"{need.missing} is not in {need.where}") for need in left}
    return [f"{what}: {why}" for what, why in (said | failed).items()]
