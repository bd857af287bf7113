"""What `vitlab train` takes of memory on sets that are larger, as docs/own-images.md shows it.

    systemd-run --scope -p MemoryMax=3G python benchmarks/memory.py

draws two sets of JPEG files into a temporary folder (6 GB on the disk, cache included) and trains
a small model on each for an epoch. The limit is whatever the process is given: under it the page
cache of the images counts as well, and what needs more is killed.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vitlab.data.limits import host_memory
from vitlab.files import write_json
from vitlab.progress import cores, in_threads
from vitlab.training.provenance import commit, device_name

RECORD = Path(__file__).parents[1] / "docs/results/memory.json"

SETS = {"pictures": (20_000, (256, 256)), "photos": (500, (4000, 3000))}
"""Name -> number of images, and their width and height as stored; some lie on their side."""

OPTIONS = (
    "--data.image_size", "256,256", "--data.fit", "crop", "--model.patch_size", "32",
    "--train.epochs", "1", "--device", "cpu",
)  # fmt: skip

CLASSES, ORIENTATION = 10, 0x0112


def draw(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write smooth pictures with a camera's grain, every fourth to be turned by its EXIF."""
    grain = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)

    def write(number: int) -> None:
        rng = np.random.default_rng([number, *size])
        smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        picture = Image.blend(smooth.resize(size, Image.Resampling.BICUBIC), grain, 0.1)
        exif = Image.Exif()
        exif[ORIENTATION] = 6 if number % 4 == 3 else 1
        file = folder / f"class{number % CLASSES}" / f"{number}.jpg"
        picture.save(file, quality=90, exif=exif)

    for _ in in_threads(write, range(count), f"drawing {folder.name}"):
        pass


def watch(words: list[str], environment: dict[str, str]) -> dict[str, float | int]:
    """Run a command; its seconds, processor time, and peaks of memory, looked at often."""
    begun, before = time.perf_counter(), os.times()
    peaks = {"RssAnon": 0, "VmHWM": 0}
    process = subprocess.Popen(words, env=environment)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        for name in peaks:  # a process that has just ended has none
            found = re.search(rf"{name}:\s+(\d+)", status)
            peaks[name] = max(peaks[name], 1024 * int(found[1]) if found else 0)
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    after = os.times()
    return {
        "seconds": time.perf_counter() - begun,
        "process_seconds": sum(after[2:4]) - sum(before[2:4]),
        "peak_anonymous_bytes": peaks["RssAnon"],
        "peak_resident_bytes": peaks["VmHWM"],
    }


def main() -> None:
    """Measure both sets and write the record."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"XDG_CACHE_HOME": f"{place}/cache"}
        for name, (count, size) in SETS.items():
            folder = Path(place) / name
            draw(folder, count, size)
            options = ["train", "digits", "--data.dataset", str(folder), *OPTIONS]
            out = ["--out", f"{place}/runs"]
            found = watch([sys.executable, "-m", "vitlab", *options, *out], environment)
            decoded = (Path(place) / "cache/vitlab/decoded").glob("*-images.npy")
            rows.append(
                {
                    "set": name,
                    "images": count,
                    "width": size[0],
                    "height": size[1],
                    "file_bytes": sum(file.stat().st_size for file in folder.rglob("*.jpg")),
                    "decoded_bytes": max(decoded, key=lambda file: file.stat().st_mtime)
                    .stat()
                    .st_size,
                    "command": " ".join(["vitlab", *options]).replace(str(folder), name),
                    **found,
                }
            )
    machine = {"device": device_name(torch.device("cpu")), "cores": cores()}
    write_json(
        RECORD,
        {"machine": machine, "limit_bytes": host_memory(), "commit": commit(), "sets": rows},
    )


if __name__ == "__main__":
    main()
