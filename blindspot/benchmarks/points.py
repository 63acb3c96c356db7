"""Points that an answer gives, and the regions of a picture that they should lie in.

A region is text, so that an answers file can be scored without its pictures: ``W H`` of the picture in pixels, and
behind them a rectangle ``x0 y0 x1 y1`` (ends exclusive), or ``runs`` of pixels outside and inside in turn, row by row.
"""

import ast
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from blindspot.benchmarks.rules import Item, Scored
from blindspot.errors import UserError
from blindspot.files import PICTURE_FORMATS, parse_json

if TYPE_CHECKING:
    import numpy as np

Point = tuple[float, float]
Polygon = Sequence[Point]
LARGEST = 64_000_000
"""Pixels of a region."""
_PLAIN = re.compile(r"\d{1,5} \d{1,5}(?: runs(?: \d{1,8})+|(?: \d{1,5}){4})", re.ASCII)
_NUMBER = r"[-+]?\d++\.?+\d*+"
_TUPLE = re.compile(rf"\(({_NUMBER}(?:,\s*{_NUMBER})*?)\)")


def region_text(mask: bytes, name: str) -> str:
    """The region of a mask, an image file whose pixels above zero are inside; ``name`` is for messages."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(mask), formats=PICTURE_FORMATS) as image:
            width, height = image.size
            if width * height > LARGEST:
                raise ValueError(f"it has {width} x {height} pixels")
            inside_p = np.asarray(image.convert("L")).reshape(-1) > 0
    except Exception as error:  # what a damaged file makes the decoders raise has no common base
        raise UserError(f"{name}: its mask cannot be read: {error}; get the data set again") from error
    ends = np.flatnonzero(np.diff(inside_p.astype(np.int8))) + 1
    lengths = np.diff(np.concatenate([[0], ends, [inside_p.size]])).tolist()
    return f"{width} {height} runs {' '.join(map(str, [0, *lengths] if inside_p[:1].any() else lengths))}"


def of_another_size(text: str, picture: bytes) -> bool:
    """Whether a region is of a picture of another size; a picture that cannot be opened is told where it is shown."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture), formats=PICTURE_FORMATS) as image:
            return is_region(text) and text.split()[:2] != [str(side) for side in image.size]
    except Exception:  # what a damaged file makes the decoders raise has no common base
        return False


def is_region(text: str) -> bool:
    """Whether a text is a region, and not larger than its picture."""
    if _PLAIN.fullmatch(text) is None:
        return False
    numbers = [int(number) for number in text.replace(" runs", "").split()]
    size = numbers[0] * numbers[1]
    return 0 < size <= LARGEST and (" runs" not in text or sum(numbers[2:]) == size)


@lru_cache(maxsize=16)
def region(text: str) -> "np.ndarray":
    """A boolean array, height by width, of a text that `is_region`."""
    import numpy as np

    numbers = [int(number) for number in text.replace(" runs", "").split()]
    width, height, rest = numbers[0], numbers[1], numbers[2:]
    if " runs" in text:
        return np.repeat(np.arange(len(rest)) % 2 == 1, rest).reshape(height, width)
    mask_hw = np.zeros((height, width), dtype=bool)
    mask_hw[rest[1] : rest[3], rest[0] : rest[2]] = True
    return mask_hw


def polygon(text: str) -> list[Point] | None:
    """Three or more corners ``[(x, y), ...]``; None of any other text."""
    try:
        corners = ast.literal_eval(text.strip())
        found = [(float(x), float(y)) for x, y in corners]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if len(found) > 2 and all(isfinite(number) for point in found for number in point) else None


def inside(point: Point, corners: Polygon) -> bool:
    """The even-odd rule."""
    x, y = point
    crossed = False
    for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            crossed = not crossed
    return crossed


def inside_of_old(point: Point, corners: Polygon) -> bool:
    """As the code of RoboSpatial-Home had it until 2025-12: upright edges to the left of a point count too."""
    x, y = point
    crossed = False
    for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if min(y1, y2) < y <= max(y1, y2) and (x1 == x2 or x <= (y - y1) * (x2 - x1) / (y2 - y1) + x1):
            crossed = not crossed
    return crossed


def share(mask_hw: "np.ndarray", points: Sequence[Point], boxes: Sequence[tuple[int, int, int, int]] = ()) -> float:
    """The share of pixels inside; of boxes every pixel counts; outside the picture is outside. 0 without any."""
    height, width = mask_hw.shape
    right = sum(bool(mask_hw[int(y), int(x)]) for x, y in points if 0 <= x < width and 0 <= y < height)
    total = len(points)
    for x0, y0, x1, y1 in boxes:
        right += int(mask_hw[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)].sum())
        total += max(x1 - x0, 0) * max(y1 - y0, 0)
    return right / total if total else 0.0


def shown(points: Sequence[Point]) -> str:
    """Points as a row keeps them; of many the first."""
    return str([list(point) for point in points[:20]])


def tuples(raw: str) -> list[list[float]]:
    """Numbers in round brackets, those without a point as whole numbers."""
    found = [
        [float(number) if "." in number else int(number) for number in match.split(",")]
        for match in _TUPLE.findall(raw)
    ]
    return [numbers for numbers in found if all(abs(number) < 1e9 for number in numbers)]


def _fence(raw: str) -> str:
    """What stands in a fence that the text begins with."""
    text = raw.strip()
    return re.sub(r"\A```[^\n]*\n?(.*?)(?:```)?\Z", r"\1", text, flags=re.DOTALL).strip()


def _literal(text: str) -> Any:
    """JSON, or else a literal of Python; None of anything else."""
    for read in (parse_json, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def named_points(raw: str, *keys: str) -> list[tuple[str, Point]]:
    """The pairs of numbers under the first of some keys in a list of objects, or one, with the key."""
    held = _literal(_fence(raw))
    found: list[tuple[str, Point]] = []
    for one in [held] if isinstance(held, dict) else held if isinstance(held, list) else []:
        key = next((key for key in keys if isinstance(one, dict) and one.get(key)), None)
        pair = one[key] if key else None
        if isinstance(pair, list | tuple) and len(pair) == 2:
            try:
                found.append((str(key), (float(pair[0]), float(pair[1]))))
            except (ValueError, TypeError, OverflowError):
                continue
    return [(key, point) for key, point in found if isfinite(point[0] + point[1])]


def pixels(points: Sequence[Point], width: int, height: int) -> list[Point]:
    """Fractions of a picture to its pixels, cut off as `int` does."""
    return [(int(x * width), int(y * height)) for x, y in points]


def clipped(points: Sequence[Point], width: int, height: int) -> list[Point]:
    """Fractions of a picture to its nearest pixels, those outside to the border."""
    return [(round(min(max(x * width, 0), width - 1)), round(min(max(y * height, 0), height - 1))) for x, y in points]


def easi_points(raw: str, width: int, height: int) -> list[Point]:
    """EASI's parser: fractions of the picture.

    Objects with ``point_2d`` or ``point``: up to 1.5 fractions, up to 1000 thousandths, else pixels. Otherwise pairs in
    round brackets, up to 1.5 fractions, else pixels; and of four numbers every pixel of the box.
    """
    found = []
    for _, (x, y) in named_points(raw, "point_2d", "point"):
        most = max(abs(x), abs(y))
        by = (1, 1) if most <= 1.5 else (1000, 1000) if most <= 1000 else (width, height)
        found.append((x / by[0], y / by[1]))
    for numbers in () if found else tuples(raw):
        scale = (1, 1) if max(map(abs, numbers)) <= 1.5 else (width, height)
        if len(numbers) == 2:
            found.append((numbers[0] / scale[0], numbers[1] / scale[1]))
        elif len(numbers) == 4:
            by = (width, height) if scale == (1, 1) else (1, 1)
            across, down = sorted(n * by[0] for n in numbers[::2]), sorted(n * by[1] for n in numbers[1::2])
            x0, x1, y0, y1 = (round(n) for n in (*across, *down))
            if (x1 - x0) * (y1 - y0) <= LARGEST / 10:
                found += [(x / width, y / height) for y in range(y0, y1) for x in range(x0, x1)]
    return found


def in_region(item: Item) -> Scored:
    """The share of points in the region, as EASI's parser was meant to read them."""
    mask_hw = region(item.gold)
    height, width = mask_hw.shape
    points = clipped(easi_points(item.raw, width, height), width, height)
    return Scored(shown(points), share(mask_hw, points), bool(points))
