"""Fetching a known data set: several hosts in turn, resumed, verified, and only then in place."""

import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from vitlab.data.known import File, KnownSet, Source
from vitlab.errors import DataError
from vitlab.files import Lock, sha256, sync_folder

ATTEMPTS = 5
"""Connections a host may drop in a row without sending anything before the next is tried."""
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 18


def fetch(name: str, known: KnownSet, cache: Path) -> Path:
    """Fetch a known set into `cache`/`name`, which appears only when it is complete.

    The environment variable VITLAB_<NAME>_URL (http, https or file) replaces the known
    addresses. Raises one DataError that lists what was tried and the ways by hand.
    """
    cache.mkdir(parents=True, exist_ok=True)
    variable = f"VITLAB_{name.upper()}_URL"
    address = os.environ.get(variable)
    sources = _override(name, known, address) if address else known.sources
    partial, complete = cache / f"{name}.part", cache / name
    failures = []
    with Lock(cache / f"{name}.lock"):
        partial.mkdir(exist_ok=True)
        for source in sources:
            try:
                for file in source:
                    _download(file, partial / file.name)
            except (OSError, http.client.HTTPException, DataError) as error:
                failures.append(f"  {file.url}: {error}")
                continue
            for leftover in set(partial.iterdir()) - {partial / file.name for file in source}:
                leftover.unlink()
            os.replace(partial, complete)
            sync_folder(cache)
            return complete
    raise DataError(
        "\n".join(
            [f"{name} could not be fetched:", *failures, *_by_hand(name, known, complete, variable)]
        )
    )


def _override(name: str, known: KnownSet, address: str) -> tuple[Source, ...]:
    return ((File(address, known.sha256(File(address, None).name)),),)


def _by_hand(name: str, known: KnownSet, complete: Path, variable: str) -> list[str]:
    archive = known.sources[-1][0].name
    return [
        "Get it by hand, in one of these ways:",
        f"  put {archive} (SHA-256 {known.sha256(archive)}) into {complete},",
        f"  or into FOLDER/{name} and set VITLAB_DATA=FOLDER (or --data-root FOLDER);",
        f"  hf download uoft-cs/{name} --repo-type dataset --local-dir FOLDER/{name};",
        f"  or set {variable} to another address of {archive} (http, https or file).",
    ]


def _download(file: File, target: Path) -> None:
    if target.exists():
        return
    if urlsplit(file.url).scheme not in ("http", "https", "file"):
        raise DataError("not an http, https or file address")
    part = target.with_name(f"{target.name}.part")
    dropped = 0
    while not _receive(file, part):
        dropped += 1
        print(dropped)
