"""Image files as RGB pictures, or one line that says what is wrong with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from blindspot.errors import UserError
from blindspot.files import PICTURE_FORMATS

MOST_ELONGATED = 200


def open_image(path: Path | str) -> Image.Image:
    """An image file as RGB, as Pillow's ``convert("RGB")`` makes it, with two repairs.

    - EXIF: the picture is turned the way the camera says, as viewers and transformers do. LLaVA's loader leaves it.
    - Sixteen-bit grey is scaled to eight bits; Pillow alone would clip it to white.

    The rest is Pillow's, and the custom of this field. What the file holds decides, not its name: a GIF called
    ``.jpg`` opens. Transparency is dropped, not composited: a transparent pixel shows the colour stored under it. CMYK
    is converted without its colour profile. Of an animation the first frame is taken.

    Any size opens, 1 x 1 and 20,000 x 10 pixels too, up to Pillow's limit on pixels
    (2 * ``PIL.Image.MAX_IMAGE_PIXELS``, 178,956,970 unless changed). 32-bit values are refused: a file does not state
    their range.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no image at {path}")
    if not path.is_file():
        raise _unreadable(path, "it is a folder" if path.is_dir() else "it is not a file")
    try:
        if not path.stat().st_size:
            raise _unreadable(path, "it is empty")
        with path.open("rb") as file:
            return decode(file, str(path))
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def decode(file: BinaryIO, name: str) -> Image.Image:
    """The content of an image file as RGB, as `open_image` makes it; ``name`` is what errors call it."""
    with opened(file, name) as image:
        ImageOps.exif_transpose(image, in_place=True)
        # Pillow scales any PPM's range to 16 bits.
        if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
            why = f"it has 32-bit values (mode {image.mode}) without a range; save it with 8 or 16 bits"
            raise _unreadable(name, why)
        if image.mode == "I" or image.mode.startswith("I;16"):
            grey_hw = np.asarray(image).astype(np.uint32)
            return Image.fromarray(((grey_hw + 128) // 257).astype(np.uint8)).convert("RGB")
        if image.mode != "RGB":
            return image.convert("RGB")
        image.load()  # as it is: a conversion would copy it
        return image


@contextmanager
def opened(file: BinaryIO, name: str) -> Iterator[Image.Image]:
    """An image file of which the header alone has been read; what fails inside the block is its fault."""
    try:
        with Image.open(file, formats=PICTURE_FORMATS) as image:
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise _unreadable(name, "it is in no known image format") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise _unreadable(name, f"it has more than {limit:,} pixels, the most that are opened") from error
    except Exception as error:  # what a damaged file makes the decoders raise has no common base
        raise _unreadable(name, str(error) or type(error).__name__) from error


def refuse_elongated(image: Image.Image) -> None:
    """Refuse a picture that is more than `MOST_ELONGATED` times as long as it is wide (Qwen2-VL's limit).

    An encoder that resizes the shorter side and cuts out the centre (CLIP, AIMv2, DINOv2) would see less than a
    two-hundredth of it, after enlarging 20,000 x 10 pixels to more than a gigabyte.
    """
    if max(image.size) > MOST_ELONGATED * min(image.size):
        width, height = image.size
        raise UserError(
            f"the picture is {width} x {height} pixels, more than {MOST_ELONGATED} times as long as it is wide; "
            "cut out the part that matters"
        )


def _unreadable(path: Path | str, why: str) -> UserError:
    return UserError(f"{path} is not an image that can be read: {why}")
