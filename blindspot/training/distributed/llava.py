"""LLaVA's rows as samples: a conversation's token ids, and its pictures as the encoder takes them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.ExifTags import Base

from blindspot.errors import UserError
from blindspot.files import PICTURE_FORMATS
from blindspot.model.conversation import Message, RowError, Span
from blindspot.model.encoding import IGNORE, encode
from blindspot.model.images import refuse_elongated
from blindspot.training.data import LlavaRows, open_picture
from blindspot.training.data.pictures import picture_path
from blindspot.training.distributed.batches import Picture, Sample
from blindspot.training.distributed.preparing import Preparation

Template = Callable[[Sequence[Message]], list[Span]]
_ROTATED = (5, 6, 7, 8)


class LlavaSamples:
    """Rows of a LLaVA JSON as `batches.Samples`.

    Args:
        rows: the rows; with ``images_root``, unless none has a picture.
        processor: the variant's.
        template: from messages to spans, e.g. `conversation.v1`.
        max_length: longest sample in tokens, pictures counted.
    """

    def __init__(self, rows: LlavaRows, processor: Any, template: Template, max_length: int = 2048) -> None:
        self._rows, self._processor, self._template = rows, processor, template
        self._max_length = max_length
        self._prepared = Preparation(processor.image_processor)
        self._blank_size: tuple[int, int] = (64, 64)
        blank = self._prepared(Image.new("RGB", self._blank_size))
        self._ragged = "spatial_shapes" in blank
        self._tokens: dict[tuple[int, int], int] = {self._blank_size: self._count(blank)}
        placeholder = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        tokens = self._tokens[self._blank_size]
        self.filler = Sample("", [placeholder] * tokens, [IGNORE] * tokens, (None,))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Sample:
        """See `batches.Samples`. Of an encoder that keeps the aspect ratio, headers of pictures are read here."""
        row = self._rows[number]
        try:
            counts = [self._tokens_of(name) for name in row.images]
        except UserError as error:
            raise RowError(str(error)) from error
        encoded = encode(self._template(row.messages), self._processor.tokenizer, counts, self._max_length)
        return Sample(row.id, encoded.ids, encoded.labels, row.images)

    def pixels(self, sample: Sample, blank: bool = False) -> list[Picture]:
        """See `batches.Samples`."""
        return [self._pixels(name, blank) for name in sample.pictures]

    def lengths(self) -> tuple[Any, Any]:
        """Words of every row, and whether it has a picture, for LLaVA's order."""
        words_r, pictures_r = self._rows.lengths()
        return words_r, pictures_r > 0

    def _pixels(self, name: str | None, blank: bool) -> Picture:
        if name is None:
            return self._prepared(Image.new("RGB", self._blank_size))
        if blank:
            return self._prepared(Image.new("RGB", self._size(name) if self._ragged else self._blank_size))
        picture = open_picture(self._root, name)
        refuse_elongated(picture)
        return self._prepared(picture)

    def _count(self, picture: Picture) -> int:
        one = {name: tensor[None] for name, tensor in picture.items()}
        return self._processor.replace_image_token(one, 0).count(self._processor.image_token)

    def _tokens_of(self, name: str) -> int:
        size = self._size(name) if self._ragged else self._blank_size
        if size not in self._tokens:
            self._tokens[size] = self._count(self._prepared(Image.new("RGB", size)))
        return self._tokens[size]

    def _size(self, name: str) -> tuple[int, int]:
        """Width and height, from the header, after the turn that EXIF asks for."""
        path = picture_path(self._root, name)
        try:
            with Image.open(path, formats=PICTURE_FORMATS) as image:
                refuse_elongated(image)
                width, height = image.size
                turned = image.getexif().get(Base.Orientation) in _ROTATED
        except UserError:
            raise
        except Exception as error:  # Pillow's readers raise anything
            raise UserError(f"{path} has no header that can be read: {error}") from error
        return (height, width) if turned else (width, height)

    @property
    def _root(self) -> Path:
        if self._rows.images_root is None:
            raise UserError("these rows have pictures; name the folder that their paths are relative to")
        return self._rows.images_root
