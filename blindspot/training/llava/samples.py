"""LLaVA's rows as samples: a conversation's token ids, and its pictures as the encoder takes them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from blindspot.errors import UserError
from blindspot.files import PICTURE_FORMATS, shown_size
from blindspot.model.conversation import Message, RowError, Span
from blindspot.model.encoding import IGNORE, encode
from blindspot.model.images import refuse_elongated
from blindspot.training.llava.pictures import open_picture, picture_path
from blindspot.training.llava.rows import LlavaRows
from blindspot.training.packing import Picture, TrainingSample

Template = Callable[[Sequence[Message]], list[Span]]
BLANK = (64, 64)
_KNOWN = (CLIPImageProcessorPil, LlavaImageProcessorPil, SiglipImageProcessorPil)


class LlavaSamples:
    """Rows of a LLaVA JSON as `loading.Samples`, at most ``max_length`` tokens long, pictures counted.

    ``processor`` is the variant's.
    """

    def __init__(self, rows: LlavaRows, processor: Any, template: Template, max_length: int = 2048) -> None:
        self._rows, self._processor, self._template = rows, processor, template
        self._max_length = max_length
        self._prepared = Preparation(processor.image_processor)
        self._ragged = "spatial_shapes" in self._prepared(Image.new("RGB", BLANK))
        self._tokens: dict[tuple[int, int], int] = {}
        placeholder, tokens = processor.tokenizer.convert_tokens_to_ids(processor.image_token), self._tokens_of(None)
        self.filler = TrainingSample("", [placeholder] * tokens, [IGNORE] * tokens, (None,))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> TrainingSample:
        """See `loading.Samples`. Of an encoder that keeps the aspect ratio, headers of pictures are read here."""
        row = self._rows[number]
        try:
            counts = [self._tokens_of(name) for name in row.images]
        except UserError as error:
            raise RowError(str(error)) from error
        encoded = encode(self._template(row.messages), self._processor.tokenizer, counts, self._max_length)
        return TrainingSample(row.id, encoded.ids, encoded.labels, row.images)

    def pixels(self, sample: TrainingSample, blank: bool = False) -> list[Picture]:
        """See `loading.Samples`."""
        made = []
        for name in sample.pictures:
            if name is None or blank:
                picture = Image.new("RGB", self._size(name))
            else:
                picture = open_picture(self._rows.images_root, name)
                refuse_elongated(picture)
            made.append(self._prepared(picture))
        return made

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Words of every row, and whether it has a picture, for LLaVA's order."""
        words_r, pictures_r = self._rows.lengths()
        return words_r, pictures_r > 0

    def _tokens_of(self, name: str | None) -> int:
        size = self._size(name)
        if size not in self._tokens:
            picture = {key: tensor[None] for key, tensor in self._prepared(Image.new("RGB", size)).items()}
            text = self._processor.replace_image_token(picture, 0)
            self._tokens[size] = text.count(self._processor.image_token)
        return self._tokens[size]

    def _size(self, name: str | None) -> tuple[int, int]:
        """Width and height after the turn that EXIF asks for, from the header; `BLANK` where no size matters."""
        if name is None or not self._ragged:
            return BLANK
        path = picture_path(self._rows.images_root, name)
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                refuse_elongated(image)
                return shown_size(image)
        except UserError:
            raise
        except Exception as error:  # Pillow's readers raise anything
            raise UserError(f"{path} has no header that can be read: {error}") from error


class Preparation:
    """What an image processor does to one picture: pad to a square, resize, cut out the centre, normalise.

    The numbers are those of transformers' image processors, in less time: these turn a picture into numbers and back
    for every step of theirs. Here Pillow resizes it, as it does there, and what becomes of each of the 256 levels is
    looked up. A model is asked through the processor itself, so about the very pictures that it was trained on. A
    processor of a class that is not known here, or that leaves out a step, is called itself.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        steps = ("do_resize", "do_rescale", "do_normalize")
        self._own = type(processor) in _KNOWN and all(getattr(processor, step) for step in steps)
        if not self._own:
            return
        self._resample = Image.Resampling(processor.resample)
        self._pad = tuple(int(255 * mean) for mean in processor.image_mean) if processor.do_pad else None
        self._crop = processor.crop_size if processor.do_center_crop else None
        levels = Image.fromarray(np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2))
        made = processor(images=levels, do_resize=False, do_pad=False, do_center_crop=False, return_tensors="np")
        self._become_c256 = made["pixel_values"][0][..., 0]

    def __call__(self, picture: Image.Image) -> dict[str, Tensor]:
        """The encoder's input of an RGB picture, without the dimension of the batch."""
        if not self._own:
            return self._by_processor(picture)
        square = picture
        if self._pad is not None and picture.width != picture.height:
            side = max(picture.size)
            square = Image.new("RGB", (side, side), self._pad)
            square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        wished, (width, height) = self._processor.size, square.size
        if short := wished["shortest_edge"]:
            long = int(short * max(width, height) / min(width, height))
            width, height = (long, short) if height <= width else (short, long)
        else:
            width, height = wished["width"], wished["height"]
        crop = self._crop or {"height": height, "width": width}
        top, left = (height - crop["height"]) // 2, (width - crop["width"]) // 2
        if top < 0 or left < 0:  # which transformers fills with black
            return self._by_processor(picture)
        resized = square.resize((width, height), self._resample)
        cut = resized.crop((left, top, left + crop["width"], top + crop["height"]))
        pixels_chw = [become[np.asarray(one)] for become, one in zip(self._become_c256, cut.split(), strict=True)]
        return {"pixel_values": torch.from_numpy(np.stack(pixels_chw))}

    def _by_processor(self, picture: Image.Image) -> dict[str, Tensor]:
        made = self._processor(images=picture, return_tensors="pt")
        return {name: torch.as_tensor(value)[0] for name, value in made.items() if name != "pixel_attention_mask"}
