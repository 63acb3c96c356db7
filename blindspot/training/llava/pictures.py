"""Pictures of a data set: inside its folder, and what their files say about themselves."""

import os
import re
import warnings
from pathlib import Path, PureWindowsPath
from typing import Literal, NamedTuple

from PIL import Image

from blindspot.errors import UserError, explained
from blindspot.files import PICTURE_FORMATS
from blindspot.model.images import open_image, refuse_elongated

_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82"}
_SAME = {"MPO": "JPEG"}  # several JPEGs in one file, as cameras write them


class EscapeError(UserError):
    """An image path that leads, or could lead, out of the image folder."""


def picture_path(root: Path, name: str) -> Path:
    """Where the image ``name`` of a data set lies, with symbolic links followed.

    An `EscapeError` if it is absolute, has ``..`` in it, or a symbolic link leads out of ``root``.
    """
    if name.startswith(("/", "\\")) or PureWindowsPath(name).is_absolute():
        raise EscapeError(f"image path {name!r} is absolute; it should be relative to the image folder")
    if ".." in re.split(r"[/\\]", name) or "\0" in name:
        raise EscapeError(f"image path {name!r} has '..' or a zero byte in it")
    inside = os.path.realpath(root)
    path = Path(os.path.realpath(os.path.join(inside, name)))
    if not path.is_relative_to(inside):
        raise EscapeError(f"image path {name!r} leaves {root} by a symbolic link; copy or mount what it needs there")
    return path


def open_picture(root: Path, name: str) -> Image.Image:
    """The image ``name`` of a data set below ``root``, as `open_image` opens it."""
    path = picture_path(root, name)
    with explained(f"cannot read {path}"):
        return open_image(path)


class PictureFault(NamedTuple):
    """What is wrong with an image: the kind of fault, and in words why."""

    fault: Literal["escaping", "missing", "broken", "misnamed"]
    why: str


def inspect_picture(root: Path, name: str) -> PictureFault | None:
    """What is wrong with an image, from its header and its end.

    A JPEG or PNG that ends as one should is not decoded: damage in its middle is not found. Any other file is.
    """
    try:
        path = picture_path(root, name)
    except EscapeError as error:
        return PictureFault("escaping", str(error))
    try:
        if not path.exists():
            return PictureFault("missing", f"no image at {path}")
        found = _format_if_whole(path)
        if found is None:
            with warnings.catch_warnings(action="ignore"):
                open_picture(root, name)
                with Image.open(path, formats=PICTURE_FORMATS) as image:
                    refuse_elongated(image)
                    found = _SAME.get(str(image.format), str(image.format))
    except UserError as error:
        return PictureFault("broken", str(error))
    except OSError as error:
        return PictureFault("broken", f"cannot read {path}: {error.strerror or error}")
    if Image.registered_extensions().get(path.suffix.lower(), found) != found:
        return PictureFault("misnamed", f"{path} is a {found} file by its content")
    return None


def _format_if_whole(path: Path) -> str | None:
    """The format of a JPEG or PNG that has a header and an end; None if decoding must tell."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=PICTURE_FORMATS) as image:
            refuse_elongated(image)
            found = _SAME.get(str(image.format), str(image.format))
    except UserError:
        raise
    except Exception:  # Pillow's readers raise anything; `open_image` words it
        return None
    if found not in _ENDS:
        return None
    end = _ENDS[found]
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return found if file.read() == end else None
