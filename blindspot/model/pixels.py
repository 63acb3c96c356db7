"""transformers' processors that want torchvision, without it.

Some processors of pictures (Llama 4's, Molmo 2's, LFM2-VL's, PerceptionLM's, Kimi K2.5's, the unified Gemma 4's) have
no variant on Pillow, and transformers hides them where torchvision is missing. What they use of it is here, on the
functions of torch that torchvision calls, so that pixels are equal to the bit.
"""

import platform
import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Tensor
from torch.nn import functional
from transformers import image_processing_backends as backends
from transformers.utils.import_utils import is_torchvision_available

MODES: dict[Any, str] = {Resampling.BILINEAR: "bilinear", Resampling.BICUBIC: "bicubic"}
"""Interpolation as torch names it, by Pillow's number."""
_WANTED = "torchvision.transforms.v2"
NATIVE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
"""Whether torchvision lets torch interpolate bytes bilinearly on this processor, or has it round fractions."""


def resize(image: Tensor, size: tuple[int, int], interpolation: Any = "bilinear", antialias: bool = True) -> Tensor:
    """Pictures of shape (..., channels, height, width) at another size, of the type that they have."""
    mode = MODES.get(interpolation) or str(interpolation)
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    exact = image.is_floating_point() or mode == "bicubic" or NATIVE
    pictures_bchw = image.reshape(-1, *image.shape[-3:])
    made = functional.interpolate(
        pictures_bchw if exact else pictures_bchw.float(), tuple(size), mode=mode, antialias=antialias
    )
    return (made if exact else made.round().to(image.dtype)).reshape(*image.shape[:-2], *size)


def pad(image: Tensor, padding: list[int], fill: Any = 0, padding_mode: str = "constant") -> Tensor:
    """Pictures with ``padding`` left, above, right and below; ``fill`` is one value, or a list of equal ones."""
    left, top, right, bottom = padding
    (value,) = set(fill) if isinstance(fill, list) else {fill}
    return functional.pad(image, (left, right, top, bottom), padding_mode, value)


def normalize(image: Tensor, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    """Pictures less ``mean``, divided by ``std``, channel by channel."""
    mean_c11, std_c11 = (torch.as_tensor(of, dtype=image.dtype).reshape(-1, 1, 1) for of in (mean, std))
    return (image.sub_(mean_c11) if inplace else image.sub(mean_c11)).div_(std_c11)


def real(hidden: Any) -> Any:
    """The class that transformers hides, in whose place it shows a dummy; any other class is returned as it is."""
    if is_torchvision_available() or not getattr(hidden, "is_dummy", False):
        return hidden
    modes = SimpleNamespace(BILINEAR="bilinear", BICUBIC="bicubic", LANCZOS="lanczos")
    shown: Any = backends
    shown.tvF = SimpleNamespace(resize=resize, pad=pad, normalize=normalize, InterpolationMode=modes)
    shown.pil_torch_interpolation_mapping = MODES
    stand_in: Any = ModuleType(_WANTED)
    stand_in.functional = shown.tvF
    sys.modules[_WANTED] = stand_in
    try:
        return getattr(import_module(hidden.__module__), hidden.__name__)
    finally:
        del sys.modules[_WANTED]
