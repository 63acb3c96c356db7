"""Pictures as an encoder takes them: the numbers that transformers' image processors make, in less time.

These processors turn a picture into numbers and back for every step of theirs. Here Pillow resizes it, as it does
there, and what becomes of each of the 256 levels is looked up. A model is asked through the processor itself, so about
the very pictures that it was trained on.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

_KNOWN = (CLIPImageProcessorPil, LlavaImageProcessorPil, SiglipImageProcessorPil)
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
        self._resample = Image.Resampling(processor.resample)
        self._pad = tuple(int(255 * mean) for mean in processor.image_mean) if processor.do_pad else None
        self._crop = processor.crop_size if processor.do_center_crop else None
        levels = Image.fromarray(np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2))
        made = processor(images=levels, do_resize=False, do_pad=False, do_center_crop=False, return_tensors="np")
        self._become_c256 = made["pixel_values"][0][..., 0]

    def __call__(self, picture: Image.Image) -> dict[str, Tensor]:
        """The encoder's input, without the dimension of the batch.

        Args:
            picture: RGB.
        """
        size = self._size(picture) if self._own else None
        if size is None:
            made = self._processor(images=picture, return_tensors="pt")
            return {name: torch.as_tensor(value)[0] for name, value in made.items() if name != "pixel_attention_mask"}
        resized = self._squared(picture).resize((size[1], size[0]), self._resample)
        if self._crop is not None:
            top, left = (size[0] - self._crop["height"]) // 2, (size[1] - self._crop["width"]) // 2
            resized = resized.crop((left, top, left + self._crop["width"], top + self._crop["height"]))
        pixels_chw = np.stack(
            [become[np.asarray(one)] for become, one in zip(self._become_c256, resized.split(), strict=True)]
        )
        return {"pixel_values": torch.from_numpy(pixels_chw)}

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
