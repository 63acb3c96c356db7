"""Videos as pictures: frames at even steps, each a PNG, decoded when they are asked for."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from blindspot import files
from blindspot.benchmarks.base import Pictures, Row, Table, digest
from blindspot.errors import UserError


def even_steps(frames: int, count: int) -> list[int]:
    """Which of a video's ``frames`` are taken: ``count`` from the first to the last, or all of fewer."""
    if frames <= count:
        return list(range(frames))
    return [round(place * (frames - 1) / (count - 1)) for place in range(count)]


@lru_cache(maxsize=2)
def frames_of(path: Path, count: int) -> tuple[bytes, ...]:
    """Frames of a video as PNG files.

    Raises:
        UserError: without PyAV, or of a video that cannot be decoded.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise UserError(
            "videos are read by PyAV, which is not installed; pip install 'spatial-blindspot[video]'"
        ) from None
    made: list[bytes] = []
    try:
        with av.open(str(path)) as video:
            total = sum(1 for _ in video.decode(video=0))
        wanted = set(even_steps(total, count))
        with av.open(str(path)) as video:
            for number, frame in enumerate(video.decode(video=0)):
                if number in wanted:
                    held = io.BytesIO()
                    frame.to_image().save(held, "PNG")
                    made.append(held.getvalue())
    except (OSError, ValueError, IndexError, FFmpegError) as error:
        raise UserError(f"cannot decode the video {path}: {error}; get it again") from error
    if not made:
        raise UserError(f"the video {path} has no frames; get it again")
    return tuple(made)


def with_frames(
    source: Path, rows: Sequence[Mapping[str, Any]], video: Callable[[Mapping[str, Any]], str], count: int
) -> Table:
    """Rows with the frames of videos at or below the folder of ``source``: ``count`` of each, fewer of a shorter one.

    Videos are told apart by their bytes, and decoded once here to see that each has its frames.
    """
    names = [video(row) for row in rows]
    folder = source.parent
    absent = [name for name in dict.fromkeys(names) if not (files.inside(name) and (folder / name).is_file())]
    if absent:
        raise UserError(
            f"{len(absent):,} of {len(set(names)):,} videos are not below {folder}, for example {absent[0]}; "
            "unpack them there"
        )
    files.refuse_links_out([folder / name for name in dict.fromkeys(names)], folder)
    pictures = Pictures(lambda place: frames_of(place[0], count)[place[1]])
    keys: dict[str, tuple[int, ...]] = {}
    for name in dict.fromkeys(names):
        checksum = files.sha256_file(folder / name)
        each = range(len(frames_of(folder / name, count)))
        keys[name] = tuple(pictures.key(f"{checksum}-{count}-{number}", (folder / name, number)) for number in each)
    table = [
        Row(source, number, row, keys[name]) for number, (row, name) in enumerate(zip(rows, names, strict=True), 1)
    ]
    return Table(source, table, pictures, digest(table, pictures.keys))
