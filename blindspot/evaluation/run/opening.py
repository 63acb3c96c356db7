"""From what a user names to a model: one on this machine, a server, a file of answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from blindspot.benchmarks.base import Benchmark
from blindspot.errors import UserError, one_of
from blindspot.evaluation.adapters import ADAPTERS, GRIDS, SWITCHES, TEXT, Adapter, adapter_of, recognise
from blindspot.evaluation.base import Answerer, Asked, Prompt
from blindspot.evaluation.boxes import Form, form_of, told
from blindspot.rendezvous import own_gpu

DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Opened:
    """What is asked, and how."""

    answerer: Answerer
    prompts: str  # the prompt profile that ``auto`` means
    render: Callable[[Prompt], str] = str  # a prompt as the model gets it
    adapter: str | None = None  # the family that it is asked as, and how that was known
    form: Form | None = None  # how it says where something is; None: not known
    check_batch: Callable[[Sequence[Asked]], list[str]] | None = None
    """Which of some questions get another answer one by one than in batches; None: it has no batches."""


def open_model(
    model: str,
    benchmarks: Sequence[Benchmark],
    recorded: bool = False,
    served: str | None = None,
    adapter: str | None = None,
    boxes: str | None = None,
    server: Mapping[str, Any] = MappingProxyType({}),
    local: Mapping[str, Any] = MappingProxyType({}),
    samples: int = 1,
) -> Opened:
    """What `blindspot evaluate` is told: a file of answers to one benchmark, the address of a server, or a model here.

    A model ``served`` under the name of a family is asked as that family is, any other by the plain question.
    ``server`` are arguments of `ApiAnswerer`, ``local`` of `open_local`; ``boxes`` is the convention of its boxes,
    ``samples`` how many answers to each question a file holds.
    """
    if recorded:
        if adapter:
            raise UserError("--adapter says how a model is asked, and recorded answers are there already")
        if len(benchmarks) != 1:  # whose questions may have the same ids
            names = ", ".join(benchmark.name for benchmark in benchmarks)
            raise UserError(f"recorded answers are to one benchmark; say to which with --benchmarks (now {names})")
        from blindspot.evaluation.models.recorded import RecordedAnswerer

        form = told(boxes, ADAPTERS["generic"]) if boxes else None
        return Opened(RecordedAnswerer(Path(model), benchmarks[0].name, samples), "plain", form=form)
    if model.startswith(("http://", "https://")):
        if served is None:
            raise UserError(f"{model} may serve several models; name one with --model")
        from blindspot.evaluation.models.api import ApiAnswerer

        family, known = recognise(adapter, name=served)
        form = told(boxes, family) if boxes else None
        if tiles := local.get("tiles"):
            if family.tiles in (None, GRIDS):
                raise UserError(f"a server is not told of tiles of {family.name}; leave out --tiles")
            server = {**server, "processor": {**server.get("processor", {}), family.tiles: tiles == "on"}}
        return Opened(ApiAnswerer(model, served, **server), family.prompts, adapter=known, form=form)
    return open_local(model, adapter=adapter, boxes=boxes, **local)


def open_local(
    model: str,
    dtype: str = "auto",
    device: str | None = None,
    batch: int = 32,
    trust_remote_code: bool = False,
    adapter: str | None = None,
    boxes: str | None = None,
    tiles: str | None = None,
    think: str | None = None,
    text: bool = False,
) -> Opened:
    """Open a model on this machine, a folder of any format or a Hugging Face id.

    Args:
        dtype: of the weights; ``auto``: on a GPU the one that the family's evaluation is published with, else the
            checkpoint's.
        device: as torch names it; None: a GPU if there is one, under ``torchrun`` each process one of its own.
        batch: most questions at a time.
        trust_remote_code: whether code that the checkpoint brings along may run.
        adapter: the family that it is asked as, if not the one of its ``model_type``.
        boxes: the convention that it answers in, if not its family's.
        tiles: ``on`` or ``off``: whether pictures are cut into tiles; None: as the checkpoint's processor does.
        think: likewise, whether it thinks; its chat template must have a switch for that.
        text: whether one that reads no pictures will do, for questions that are asked without.
    """
    one_of(dtype, DTYPES, "--dtype", "type of weights")
    import torch

    from blindspot.model import load
    from blindspot.model.formats.folder import find, read_json

    load.quiet()
    folder = find(model, trust_remote_code)
    device = device or default_device()
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"--device {device}: torch knows no such device; use cpu, cuda, cuda:1 or mps") from error
    family, known = recognise(adapter, str(read_json(folder / "config.json").get("model_type")))
    kind = family.dtype if dtype == "auto" and where.type == "cuda" else dtype
    loaded, processor = load.load(folder, trust_remote_code, kind if kind == "auto" else getattr(torch, kind), text)
    if processor.image_processor is None:  # asked in words that want a letter or one word
        return replace(opened(loaded, processor, device, TEXT, batch), prompts="llava", adapter=TEXT.name)
    if think and not any(switch in str(processor.chat_template) for switch in SWITCHES):
        raise UserError("this model's chat template has no switch for thoughts; leave out --think")
    family = family if tiles is None else _tiled(loaded, processor, family, tiles == "on")
    return replace(opened(loaded, processor, device, family, batch, boxes), adapter=known)


def _tiled(model: Any, processor: Any, family: Adapter, on: bool) -> Adapter:
    """The family with tiles on or off; of grids, off leaves that of one tile alone."""
    if family.tiles is None:
        raise UserError(
            f"models asked as {family.name} cut no picture into tiles, as far as is known; leave out --tiles"
        )
    if family.tiles == GRIDS:
        side = model.config.vision_config.image_size
        grids = model.config.image_grid_pinpoints if on else [[side, side]]
        model.config.image_grid_pinpoints = processor.image_processor.image_grid_pinpoints = grids
        return family
    return replace(family, bounds={**family.bounds, family.tiles: on})


def default_device() -> str:
    """A GPU if there is one."""
    import torch

    return own_gpu() or ("mps" if torch.backends.mps.is_available() else "cpu")


def opened(
    model: Any,
    processor: Any,
    device: str,
    family: Adapter | None = None,
    batch: int = 32,
    boxes: str | None = None,
) -> Opened:
    """A model in memory, asked as its family is."""
    from blindspot.evaluation.models.local import LocalAnswerer, check_batch

    family = family or adapter_of(model.config.model_type)
    answerer = LocalAnswerer(model, processor, family, batch, device=device)
    return Opened(
        answerer,
        family.prompts,
        lambda prompt: family.render(processor, prompt),
        family.name,
        form_of(model, processor, family, boxes),
        lambda asked: check_batch(answerer, asked),
    )
