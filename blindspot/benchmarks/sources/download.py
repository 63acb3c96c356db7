"""Benchmarks on this disk: where they are looked for, and how they get there."""

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from blindspot.benchmarks.base import Benchmark, Source, found
from blindspot.errors import UserError, explained

ROOT_VARIABLE = "BLINDSPOT_DATA"
UNFINISHED = ".downloading"
"""Lies in a folder while `get` fills it."""

THREADS = 8
TIMEOUT = 60.0
"""Seconds without a byte after which a server is given up."""

Report = Callable[[str, int, int | None], None]
"""Told of every piece of a file: its name, bytes so far, bytes in all if known."""


def data_root(given: Path | None = None) -> Path:
    """The folder of benchmarks: as given, else $BLINDSPOT_DATA, else ``data``."""
    return given or Path(os.environ.get(ROOT_VARIABLE) or "data")


def locate(benchmark: Benchmark, root: Path, form: str | None = None) -> Path | None:
    """Where a benchmark lies on this disk, for `Benchmark.read`; the network is not asked.

    Looked through are ``root/NAME/FORM``, ``root/NAME``, ``root`` for VLMEvalKit's files, and the caches of
    huggingface_hub and datasets; of several forms the one asked for, else the one that the benchmark prefers. A user's
    own lies where the user says; what is drawn here is everywhere.
    """
    if benchmark.place is not None:
        return benchmark.place
    if benchmark.draw is not None:
        return root
    sources = [source for source in benchmark.sources if form in (None, source.form)]
    for source in sources:
        for folder in (root / benchmark.name / source.form, root / benchmark.name):
            if found(source.marks, folder):
                return folder
        if source.form == "tsv" and (files := found(source.marks, root)):
            return files[0]
    for source in sources:
        for folder in _cached(source):
            if found(source.marks, folder):
                return folder
    return None


def _cached(source: Source) -> Iterator[Path]:
    """Folders of the caches of huggingface_hub and of datasets that may hold a repository."""
    from huggingface_hub import constants

    def letters(name: str) -> str:  # case and marks differ between the cache of datasets and the hub
        return re.sub(r"[\W_]", "", name.lower())

    if source.repository is not None:
        hub = Path(constants.HF_HUB_CACHE) / f"datasets--{source.repository.replace('/', '--')}" / "snapshots"
        yield from sorted(hub.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
        datasets = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
        own = letters(source.repository)
        yield from (folder for folder in sorted(datasets.glob("*___*")) if letters(folder.name) == own)


def get(benchmark: Benchmark, root: Path, form: str | None = None, report: Report | None = None) -> tuple[Path, bool]:
    """Download a form of a benchmark to ``root/NAME/FORM``; what is there already is not downloaded again.

    A message says what to place where if the form cannot be downloaded, the network fails, or a checksum differs.

    Args:
        root: see `data_root`.
        form: which form; None: whichever is on this disk, whole or begun, else the first that can be downloaded.
        report: told of the progress of single files; huggingface_hub shows its own.

    Returns:
        Where it is, and whether it was there before.
    """
    forms = {source.form: source for source in benchmark.sources}
    if form not in (None, *forms):
        raise UserError(f"--form {form}: {benchmark.name} is not published so; one of: {', '.join(forms)}")
    begun = [each for each in benchmark.sources if (root / benchmark.name / each.form / UNFINISHED).exists()]
    downloadable = [each for each in benchmark.sources if each.repository or _urls(each)]
    source = forms[form] if form else [*begun, *downloadable, *benchmark.sources][0]
    folder = root / benchmark.name / source.form
    place = locate(benchmark, root, form)
    if place is not None and not (place / UNFINISHED).exists() and not (place == folder and _links(source, folder)):
        return place, True
    if source not in downloadable:
        raise UserError(
            f"{benchmark.name} {source.form} cannot be downloaded by itself; place {source.page} in {folder}"
        )
    mark = folder / UNFINISHED
    with explained(f"cannot write {folder}", advice="choose another --data"):
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        if source.repository:
            _snapshot(source, folder)
        for url in _urls(source):
            fetch(url, folder / PurePosixPath(url).name, report)
        for name, published in source.md5.items():
            with (folder / name).open("rb") as handle:
                own = hashlib.file_digest(handle, "md5").hexdigest()
            if own != published:
                (folder / name).unlink()
                raise UserError(
                    f"{folder / name}: md5 {own}, published {published}; the file was removed, get it again, or place "
                    "a copy of which you know better there by hand"
                )
        _fetch_links(source, folder, report)
        mark.unlink()
    return folder, False


def _urls(source: Source) -> list[str]:
    return [name for name in source.files if "://" in name]


def _snapshot(source: Source, folder: Path) -> None:
    """The files of a repository, all of them: huggingface_hub itself is content with what is there when offline."""
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import filter_repo_objects

    name = str(source.repository)
    patterns = [pattern for pattern in source.files if "://" not in pattern] or None
    try:
        info = HfApi().dataset_info(name)
        there = [sibling.rfilename for sibling in info.siblings or []]
        wanted = list(filter_repo_objects(there, allow_patterns=patterns))
        snapshot_download(name, repo_type="dataset", revision=info.sha, local_dir=folder, allow_patterns=patterns)
        absent = [path for path in wanted if not (folder / path).is_file()] if wanted else patterns
        if absent:
            raise FileNotFoundError(f"{absent[0]} did not come")
    except (OSError, httpx2.HTTPError, HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise UserError(
            f"cannot download huggingface.co/datasets/{name} ({_first_line(error)}); run the same command again to "
            f"continue, or place {', '.join(patterns or ['its files'])} in {folder}"
        ) from error


def _links(source: Source, folder: Path) -> Mapping[str, str]:
    """The linked pictures that are not there yet."""
    linked = source.links(folder) if source.links else {}
    return {path: url for path, url in linked.items() if not (folder / path).is_file()}


def _fetch_links(source: Source, folder: Path, report: Report | None) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(fetch, url, folder / path) for path, url in _links(source, folder).items()]
        try:
            for done, future in enumerate(futures, start=1):
                future.result()
                if report is not None:
                    report("pictures", done, len(futures))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def fetch(url: str, path: Path, report: Report | None = None) -> None:
    """Download a file, unless it is there; an earlier attempt's ``.part`` is continued.

    It is continued only if the server says which version it sends (kept as ``.version``), and still has that one. A
    web page in its place, another version and an end before the end are refused; the message says where to place it.
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
        raise UserError(
            f"cannot download {url} ({_first_line(error)}); run the same command again to continue, "
            f"or place the file at {path}"
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
