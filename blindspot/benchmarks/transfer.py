"""One file over HTTP, continued where it was broken off."""

import fcntl
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from blindspot.errors import UserError

TIMEOUT = 60.0
"""Seconds without a byte after which a server is given up."""


def fetch(url: str, path: Path, report: Callable[[str, int, int | None], None] | None = None) -> None:
    """Download a file, unless it is there; an earlier attempt's ``.part`` is continued.

    It is continued only if the server says which version it sends (kept as ``.version``), and still has that one.

    Raises:
        UserError: if the server cannot be reached, refuses, sends a web page or another version, or stops before the
            end (says where to place the file), or another process is downloading it.
    """
    if path.is_file():
        return
    import httpx2

    part, version = (path.with_name(f".{path.name}.{end}") for end in ("part", "version"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two writers would leave a mixture
            if path.is_file():  # another process has just ended
                return
            begun = version.read_text() if handle.tell() and version.is_file() else ""
            held = handle.tell() if begun else handle.truncate(0)
            headers = {"Accept-Encoding": "identity"}
            headers |= {"Range": f"bytes={held}-", "If-Range": begun} if begun else {}
            with httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
                partial = response.status_code == 206
                if response.status_code == 416 or (partial and not _goes_on(response, held, begun)):
                    part.unlink()
                    raise httpx2.HTTPError("the file there is not the one that was begun")
                response.raise_for_status()
                pieces = response.iter_raw()
                first = next(pieces, b"")
                page = not partial and first.lstrip().startswith(b"<")
                if page or "html" in response.headers.get("content-type", ""):
                    raise httpx2.HTTPError("a web page came in its place")
                if not partial:
                    held = handle.truncate(0)
                    version.write_text(_version(response))
                length = response.headers.get("content-length")
                total = held + int(length) if length else None
                for piece in chain([first], pieces):
                    handle.write(piece)
                    held += len(piece)
                    if report is not None:
                        report(path.name, held, total)
                if total is not None and held < total:
                    raise httpx2.HTTPError(f"it ended after {held:,} of {total:,} bytes")
            handle.flush()
            part.replace(path)
            version.unlink(missing_ok=True)
    except BlockingIOError as error:
        raise UserError(f"{path} is being downloaded by another process; wait for it") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"cannot download {url} ({reason[0]}); run the same command again to continue, or place the file at {path}"
        ) from error


def _version(response: Any) -> str:
    """What tells a file's versions apart byte for byte; a weak tag does not."""
    tag = response.headers.get("etag", "")
    said = tag if tag and not tag.startswith("W/") else response.headers.get("last-modified", "")
    return said if said.isascii() else ""


def _goes_on(response: Any, held: int, begun: str) -> bool:
    """Whether a partial response holds all that is missing behind ``held`` bytes of the version that was ``begun``."""
    sent = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("content-range", ""))
    place = sent and int(sent[1]) == held and int(sent[2]) + 1 == int(sent[3])
    return bool(place) and _version(response) in ("", begun)
