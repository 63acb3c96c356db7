"""Pictures as an encoder takes them, as transformers' image processors make them, in less time.

These processors turn a picture into numbers and back for every step of theirs. Here it is resized by torch's kernel for
bytes, which follows Pillow's algorithm, and normalised in one multiplication. Pillow resizes rows first or columns
first, by a rule of its own, and rounds in between; which of the two it is for a picture's size is found by trying it on
noise of that size. Then one number in some hundred is another level of the 255, by one, rarely by two. Where neither
order comes that close, Pillow itself resizes. So what a picture becomes depends on nothing but the picture.
"""

from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

CLOSE = 0.03
"""Share of numbers that may be another level; in the wrong order it is a fifth."""

Way = Literal["rows", "columns", "pillow"]
_KNOWN = (CLIPImageProcessorPil, LlavaImageProcessorPil, SiglipImageProcessorPil)
_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
_STEPS = ("do_resize", "do_rescale", "do_normalize")


class Preparation:
    """What an image processor does to one picture: pad to a square, resize, cut out the centre, normalise.

    Args:
        processor: of transformers. One of another class, or that leaves out a step, is called itself.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._own = type(processor) in _KNOWN and all(getattr(processor, step) for step in _STEPS)
        if not self._own:
            return
        self._own = Image.Resampling(processor.resample) in _MODES
        self._resample = Image.Resampling(processor.resample)
        self._pad = tuple(int(255 * mean) for mean in processor.image_mean) if processor.do_pad else None
        self._crop = processor.crop_size if processor.do_center_crop else None
        mean_c, std_c = (
            torch.tensor(values, dtype=torch.float64) for values in (processor.image_mean, processor.image_std)
        )
        self._scale_c11 = (processor.rescale_factor / std_c).float()[:, None, None]
        self._shift_c11 = (-mean_c / std_c).float()[:, None, None]

    def __call__(self, picture: Image.Image) -> dict[str, Tensor]:
        """The encoder's input, without the dimension of the batch.

        Args:
            picture: RGB.
        """
        size = self._size(picture) if self._own else None
        if size is None:
            made = self._processor(images=picture, return_tensors="pt")
            return {name: torch.as_tensor(value)[0] for name, value in made.items() if name != "pixel_attention_mask"}
        bytes_chw = resize(self._squared(picture), size, self._resample)
        if self._crop is not None:
            top, left = (size[0] - self._crop["height"]) // 2, (size[1] - self._crop["width"]) // 2
            bytes_chw = bytes_chw[:, top : top + self._crop["height"], left : left + self._crop["width"]]
        return {"pixel_values": torch.addcmul(self._shift_c11, bytes_chw.float(), self._scale_c11)}

    def _squared(self, picture: Image.Image) -> Image.Image:
        if self._pad is None or picture.width == picture.height:
            return picture
        side = max(picture.size)
        canvas = Image.new("RGB", (side, side), self._pad)
        canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return canvas

    def _size(self, picture: Image.Image) -> tuple[int, int] | None:
        """Height and width to resize to; None where the crop would be larger, which transformers fills with black."""
        wished = self._processor.size
        if wished["shortest_edge"]:
            width, height = picture.size if self._pad is None else (max(picture.size),) * 2
            short = wished["shortest_edge"]
            long = int(short * max(width, height) / min(width, height))
            size = (short, long) if height <= width else (long, short)
        else:
            size = wished["height"], wished["width"]
        fits = self._crop is None or (size[0] >= self._crop["height"] and size[1] >= self._crop["width"])
        return size if fits else None


def resize(picture: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Tensor:
    """A picture of another size, as Pillow makes it but for a level here and there.

    Args:
        picture: RGB.
        size: height and width.
        resample: ``BILINEAR`` or ``BICUBIC``.

    Returns:
        Bytes, shape (3, height, width).
    """
    return _resize(picture, size, resample, way_of(picture.size, size, resample))


@cache
def way_of(before: tuple[int, int], size: tuple[int, int], resample: Image.Resampling) -> Way:
    """How to resize pictures of ``before`` (width and height) to ``size`` (height and width) as Pillow does."""
    noise_hwc = np.random.default_rng(0).integers(0, 256, (before[1], before[0], 3), np.uint8)
    picture = Image.fromarray(noise_hwc)
    theirs_chw = _resize(picture, size, resample, "pillow").int()
    ways: tuple[Way, Way] = ("rows", "columns")
    for way in ways:
        apart_chw = (_resize(picture, size, resample, way).int() - theirs_chw).abs()
        if apart_chw.max() <= 2 and apart_chw.bool().float().mean() < CLOSE:
            return way
    return "pillow"


def _resize(picture: Image.Image, size: tuple[int, int], resample: Image.Resampling, way: Way) -> Tensor:
    if way == "pillow":
        return torch.from_numpy(np.array(picture.resize((size[1], size[0]), resample))).permute(2, 0, 1)
    pixels_1chw = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    first = (picture.height, size[1]) if way == "rows" else (size[0], picture.width)
    for step in (first, size):
        if pixels_1chw.shape[2:] != step:
            pixels_1chw = F.interpolate(pixels_1chw, size=step, mode=_MODES[resample], antialias=True)
    return pixels_1chw[0]
