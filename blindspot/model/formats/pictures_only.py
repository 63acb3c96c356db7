"""Processors of models that also take videos, without their video part.

transformers wants torchvision for every video processor, and ``num2words`` for SmolVLM's. A question about pictures
needs neither.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.models.smolvlm import processing_smolvlm

from blindspot.model.formats.folder import BACKEND

_SMOLVLM: Any = processing_smolvlm
_VIDEOS = "video_processor"
_NO_VIDEOS = SimpleNamespace(num_frames=None, fps=None)
"""In its place; SmolVLM's chat template asks it for two settings, and uses neither for pictures."""


def takes_videos(config: Any) -> bool:
    """Whether transformers' processor of such a model has a video part."""
    return type(config) in PROCESSOR_MAPPING and _VIDEOS in _whole(config).get_attributes()


def read(folder: Path, config: Any) -> Any:
    """The processor of a model that `takes_videos`.

    Args:
        folder: the checkpoint.
        config: of the model.
    """
    if _SMOLVLM.num2words is None:
        _SMOLVLM.num2words = _NO_VIDEOS  # its constructor refuses None; only videos are counted in words
    whole = _whole(config)
    names = whole.get_attributes()
    parts: dict[str, Any] = {
        "image_processor": AutoImageProcessor.from_pretrained(folder, backend=BACKEND, local_files_only=True),
        "tokenizer": AutoTokenizer.from_pretrained(folder, local_files_only=True),
    }
    settings = whole.get_processor_dict(folder, local_files_only=True)[0]
    settings.pop(_VIDEOS, None)
    without = {"get_attributes": classmethod(lambda cls: [*parts]), _VIDEOS: _NO_VIDEOS}
    own: Any = type(whole.__name__, (whole,), without)
    return own.from_args_and_dict([parts.get(name) for name in names], settings)


def _whole(config: Any) -> Any:
    """The class of the model's processor."""
    return PROCESSOR_MAPPING[type(config)]
