"""One file over HTTP, continued where it was broken off."""

import fcntl
from collections.abc import Callable
from pathlib import Path

from blindspot.errors import UserError

TIMEOUT = 60.0
"""Seconds without a byte after which a server is given up."""


def fetch(url: str, path: Path, report: Callable[[str, int, int | None], None] | None = None) -> None:
    """Download a file, unless it is there; an earlier attempt's ``.part`` is continued.

    Raises:
        UserError: if the server cannot be reached, refuses, or stops before the end (says where to place the file), or
            another process is downloading it.
    """
    if path.is_file():
        return
    import httpx2

    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two writers would leave a mixture
            if path.is_file():  # another process has just ended
                return
            held = handle.tell()
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
            with httpx2.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
                if response.status_code == 416:  # nothing is left to send, or the file has changed
                    part.unlink()
                    raise httpx2.HTTPError("the file there is not the one that was begun")
                response.raise_for_status()
                if response.status_code != 206:
                    held = handle.truncate(0)
                length = response.headers.get("content-length")
                total = held + int(length) if length else None
                for piece in response.iter_raw():
                    handle.write(piece)
                    held += len(piece)
                    if report is not None:
                        report(path.name, held, total)
                if total is not None and held < total:
                    raise httpx2.HTTPError(f"it ended after {held:,} of {total:,} bytes")
            handle.flush()
            part.replace(path)
    except BlockingIOError as error:
        raise UserError(f"{path} is being downloaded by another process; wait for it") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"cannot download {url} ({reason[0]}); run the same command again to continue, or place the file at {path}"
        ) from error
