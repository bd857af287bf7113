"""Fetching a known data set: several hosts in turn, resumed, verified, and only then in place."""

import http.client
import os
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from vitlab.data.known import File, KnownSet, Mirror
from vitlab.errors import DataError
from vitlab.files import Lock, sha256, sync_folder

TIMEOUT = 30
"""Seconds a host may stay silent."""


def fetch(name: str, known: KnownSet, cache: Path) -> Path:
    """Fetch a known set into `cache`/`name`, which appears only once it is whole.

    The environment variable VITLAB_<NAME>_URL takes the place of the known addresses: the address
    (http, https or file) of an archive in either edition, or, for a set that comes without one,
    of the folder of its official files. Raises one DataError that lists what was tried and the
    ways to get the set by hand.
    """
    variable = f"VITLAB_{name.upper()}_URL"
    mirrors = known.mirrors
    if address := os.environ.get(variable):
        mirrors = (_elsewhere(known, variable, address),)
    complete, partial = cache / name, cache / f"{name}.part"
    failures = []
    try:
        partial.mkdir(parents=True, exist_ok=True)
        lock = Lock(cache / f"{name}.lock")
    except OSError as error:
        raise DataError(
            f"the cache folder cannot be written ({error}): set XDG_CACHE_HOME to one that can"
        ) from error
    with lock:
        for mirror in mirrors:
            try:
                for file in mirror:
                    _download(file, partial / file.name)
            except (OSError, http.client.HTTPException, DataError) as error:
                failures.append(f"  {file.url}: {error}")
                continue
            for leftover in set(partial.iterdir()) - {partial / file.name for file in mirror}:
                leftover.unlink()
            os.replace(partial, complete)
            sync_folder(cache)
            return complete
    folder, where = f"FOLDER/{name}", "archive" if known.label_key else "folder of these files"
    names = [f"{file.name} (SHA-256 {file.sha256})" for file in known.official]
    repository, part = known.hub
    raise DataError(
        "\n".join(
            [
                f"{name} could not be fetched:",
                *failures,
                "Get it by hand in one of these ways:",
                *(f"  put {one} into {complete};" for one in names),
                f"  put the same into {folder} and set VITLAB_DATA=FOLDER, or --data-root FOLDER;",
                f"  hf download {repository} --repo-type dataset --include '{part}/t*' "
                f"--local-dir {folder};",
                f"  set {variable} to another address of the {where} (http, https or file).",
            ]
        )
    )


def _elsewhere(known: KnownSet, variable: str, address: str) -> Mirror:
    """The official files, from an address that a person gave."""
    if not known.label_key:
        return tuple(
            replace(file, url=f"{address.rstrip('/')}/{file.name}") for file in known.official
        )
    name = File(address, None).name
    if not name.endswith(".tar.gz"):
        raise DataError(f"{variable}={address} is not the address of a .tar.gz archive")
    return (File(address, known.sha256(name)),)


def _download(file: File, target: Path) -> None:
    """Fetch one file; a host that drops the connection is asked for the rest while it sends."""
    if target.exists():
        return
    if urlsplit(file.url).scheme not in ("http", "https", "file"):
        raise DataError("not an http, https or file address")
    part = target.with_name(f"{target.name}.part")
    part.touch()
    while True:
        before = part.stat().st_size
        try:
            _receive(file.url, part)
            break
        except (OSError, http.client.HTTPException):
            if part.stat().st_size <= before:
                raise
    if file.sha256 and (actual := sha256(part)) != file.sha256:
        part.unlink()
        raise DataError(f"the file's SHA-256 is {actual}, expected {file.sha256}")
    os.replace(part, target)


def _receive(url: str, part: Path) -> None:
    """Append what is missing of `url` to `part`; raises OSError when the connection ends early."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    have = part.stat().st_size
    headers = {"User-Agent": "vitlab"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing: the last process died before it renamed
            return
        raise
    with response:
        if response.status != 206:
            have = 0
        length = response.headers["Content-Length"]
        total = have + int(length) if length else None
        columns = "{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn()
        with (
            open(part, "ab" if have else "wb") as out,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            task = progress.add_task(url, total=total, completed=have)
            while chunk := response.read(1 << 18):
                out.write(chunk)
                progress.advance(task, len(chunk))
            out.flush()
            os.fsync(out.fileno())
    if total and part.stat().st_size != total:
        raise OSError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")
