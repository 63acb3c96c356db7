"""Files that are either whole or absent, folders held by one process, and names derived from content."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from blindspot.errors import UserError, explained

PICTURE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")
"""What `PIL.Image.open` may try. Some of its other readers start programs (EPS: Ghostscript) or are hardly tested."""
CHECKPOINTS = "checkpoints"
"""Folder of what a run that is under way continues from: of each checkpoint every file is sealed."""
LOG = "log.jsonl"
"""In the folder of whatever trains: a row a step."""
PROBES = "probes.jsonl"
"""Beside it, where something is measured on the way: a row a probe, after which step and what came out."""
LEVELLED = "levelled.json"
"""Beside it, of what trains until its loss is level: by how much it last fell, and whether that is level."""
LOCK = ".lock"
END_BYTES = 2**16
SECONDS_TO_WAIT = 1.5  # for the processes of a run that was just killed


def write_via(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place, else keep what ``path`` held."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        temporary = Path(name)
        write(temporary)
        os.umask(umask := os.umask(0o077))  # which only setting it tells
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}; free the disk or choose another --out") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, advice: str) -> Iterator[Path]:
    """A folder beside ``path`` to fill, renamed into place when the block ends well; else nothing is left of it.

    ``path`` must by then be absent or an empty folder.

    Args:
        advice: ends the message when it cannot be written: what to do.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        folder = temporary / "folder"  # with the usual permissions, which mkdtemp's has not
        folder.mkdir()
        yield folder
        folder.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; {advice}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(run: Path, seconds: float | None = None) -> Iterator[int]:
    """Hold a run folder, which is made, for this process alone; yields the lock's file descriptor.

    One that another process holds is refused after some ``seconds``, by default `SECONDS_TO_WAIT`.
    """
    with explained(f"cannot write run folder {run}", advice="choose another --out"):
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + (SECONDS_TO_WAIT if seconds is None else seconds)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                    raise UserError(
                        f"{run} is in use by another blindspot (process {holder}); wait for it or choose another --out"
                    ) from error
                time.sleep(0.05)
            except OSError as error:
                raise UserError(f"cannot lock run folder {run}: {error.strerror}; choose another --out") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def holder(run: Path) -> tuple[str, float] | None:
    """The process that holds a run folder by `locked`, and since when in seconds of the epoch; None if none does."""
    try:
        with (run / LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read(32).decode(errors="replace").strip(), os.fstat(lock.fileno()).st_mtime
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"cannot read {run / LOCK}: {error.strerror or error}") from error
    return None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_via(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order, NaN is refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yield the JSON value of each line; one that is none is named."""
    try:
        with explained(f"cannot read {path}"), path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield parse_json(line)
                except ValueError as error:
                    raise UserError(f"{path}:{number}: not a JSON line ({getattr(error, 'msg', error)})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}: not UTF-8 text") from error


def shown_size(image: Any) -> tuple[int, int]:
    """Width and height of an opened picture as it is shown, turned as its camera says; its header tells."""
    from PIL.ExifTags import Base

    width, height = image.size
    return (height, width) if image.getexif().get(Base.Orientation) in (5, 6, 7, 8) else (width, height)


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is none; also for what Python's parser alone would fail on otherwise.
    """
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        raise ValueError("an integer has too many digits") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def inside(name: Any) -> bool:
    """Whether what a file names is a path that stays, links aside, in the folder that it is relative to."""
    return isinstance(name, str) and not PurePath(name).is_absolute() and ".." not in PurePath(name).parts


def is_hub_id(name: str) -> bool:
    """Whether a name is the id of something on the Hugging Face Hub, ``ORGANISATION/NAME``, and not a path."""
    return inside(name) and name.count("/") == 1 and not name.startswith((".", "~"))


def bytes_below(folder: Path | str) -> int:
    """Bytes of every file below a folder; links are not followed, what vanishes meanwhile counts not."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += bytes_below(entry.path)
            else:
                with suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def refuse_links_out(paths: Iterable[Path], folder: Path) -> None:
    """Refuse pictures that a symbolic link fetches from elsewhere than the folder, which may be a link itself.

    In a snapshot of the Hub the cache around it belongs to it.
    """
    real = cache(os.path.realpath)
    root = Path(os.path.realpath(folder))
    around = next((above.parent for above in root.parents if above.name == "snapshots"), root)
    root = around if (around / "blobs").is_dir() else root  # where the files of a snapshot are
    for path in paths:
        if not Path(os.path.realpath(path) if path.is_symlink() else real(path.parent)).is_relative_to(root):
            raise UserError(
                f"{folder}: {path.relative_to(folder)} leads out of it by a symbolic link; copy or mount it there, or "
                "link the whole folder"
            )


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def ends_of(path: Path) -> list[int | str]:
    """What of a file shows, without reading it all, that it is another: size, time of change in ns, SHA-256 of its
    first and last `END_BYTES`."""
    with path.open("rb") as handle:
        stat, digest = os.fstat(handle.fileno()), hashlib.sha256(handle.read(END_BYTES))
        handle.seek(max(stat.st_size - END_BYTES, 0))
        digest.update(handle.read())
    return [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]


def seal(path: Path) -> None:
    """Append the SHA-256 of a file's bytes to it. What torch saves and pickles are read as before."""
    digest = bytes.fromhex(sha256_file(path))
    with path.open("ab") as handle:
        handle.write(digest)
        handle.flush()
        os.fsync(handle.fileno())


def intact(path: Path) -> bool:
    """Whether a file is as `seal` left it."""
    digest = hashlib.sha256()
    with explained(f"cannot read {path}"), path.open("rb") as handle:
        left = os.fstat(handle.fileno()).st_size - digest.digest_size
        while left > 0 and (block := handle.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
        return handle.read() == digest.digest()


def fingerprint(value: Any) -> str:
    """Hex SHA-256 of a JSON-serialisable value, independent of the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
