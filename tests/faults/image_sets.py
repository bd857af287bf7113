"""E: data sets that are damaged, hostile, mislabelled or oddly named."""

import gzip
import hashlib
import io
import os
import pickle
import random
import shutil
import tarfile
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from commands import picture
from harness import case, without_network
from PIL import Image
from trial import TINY, Command, Vitlab, until

from vitlab.data import KNOWN, from_arrays
from vitlab.data.known import File
from vitlab.errors import DataError
from vitlab.report import report
from vitlab.run import Run

NAME = "cifar-10-python.tar.gz"
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CIFAR = (
    "cpu-plain", "--train.epochs", "1", "--train.batch_size", "20", "--model.depth", "1",
    "--device", "cpu", "--train.small_epochs", "0", "--train.small_size", "none",
)  # fmt: skip


def batches(count: int = 60) -> dict[str, bytes]:
    """The members of a small CIFAR-10 archive: random images, ten classes."""
    draws = np.random.default_rng(0)
    return {
        name: pickle.dumps(
            {
                b"data": draws.integers(0, 256, (count, 3072), np.uint8),
                b"labels": (np.arange(count) % 10).tolist(),
            }
        )
        for name in BATCHES
    }


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """Pack members into an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, raw in members.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))
    return path


def publish(sha256: str | None, url: str | None = None) -> None:
    """Let the published archive be one of ours, in this process."""
    url = url or KNOWN["cifar10"].official[0].url
    facts = {"mirrors": ((File(url, sha256),),), "mean": None, "content": {}}
    KNOWN["cifar10"] = replace(KNOWN["cifar10"], **facts)  # type: ignore[index]


def listing(folder: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def cifar(root: Path, folder: Path, sha256: str | None) -> Vitlab:
    """A short training on the CIFAR-10 below a data root, whose published hash is given."""
    cache = folder / "cache"

    def before() -> None:
        os.environ["XDG_CACHE_HOME"] = str(cache)
        publish(sha256)
        without_network()

    out = folder / "runs"
    return Vitlab("train", *CIFAR, "--data-root", root, "--out", out, folder=folder, before=before)


@case("E01", "an archive cut short, changed, or killed while it is fetched")
def damaged_archive(folder: Path, scale: float) -> str:
    whole = archive(folder / "whole" / NAME, batches()).read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    draws, refused = random.Random(5), 0
    damages = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "one byte": flip(whole, draws.randrange(len(whole))),
        "another file": gzip.compress(b"something else"),
    }
    for content in damages.values():
        root = folder / f"root-{refused}"
        root.mkdir()
        (root / NAME).write_bytes(content)
        actual = hashlib.sha256(content).hexdigest()
        cifar(root, folder, digest).refuse(digest, actual, code=1)
        refused += 1
    assert not (folder / "runs").exists()
    return (
        f"{refused} of {refused} refused with both hashes; {fetched_despite_kills(folder, whole)}"
    )


def flip(content: bytes, place: int) -> bytes:
    """Change one byte."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def fetched_despite_kills(folder: Path, content: bytes, kills: int = 5) -> str:
    """Kill a download again and again; the last start repairs it without a person's help."""
    asked: list[str | None] = []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Range"])
            begin = int(self.headers["Range"][6:-1]) if self.headers["Range"] else 0
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            try:
                for place in range(begin, len(content), 1 << 16):
                    self.wfile.write(content[place : place + (1 << 16)])
                    time.sleep(0.02)
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cache = folder / "fetched"
    digest = hashlib.sha256(content).hexdigest()

    def before() -> None:
        os.environ["XDG_CACHE_HOME"] = str(cache)
        publish(digest, f"http://127.0.0.1:{server.server_port}/{NAME}")

    words = ("train", *CIFAR, "--out", folder / "runs", "--name", "fetched")
    part = cache / "vitlab" / "cifar10.part" / f"{NAME}.part"
    for kill in range(1, kills + 1):
        process = Vitlab(*words, folder=folder, before=before)
        until(lambda kill=kill: part.exists() and part.stat().st_size > kill << 17, process)
        process.kill()
        assert not (cache / "vitlab" / "cifar10").exists() and not (folder / "runs").exists()
    Vitlab(*words, folder=folder, before=before).succeed()
    server.shutdown()
    assert Run(folder / "runs" / "fetched").finished
    assert asked[0] is None and all(asked[1:]), asked
    return f"fetched despite {kills} kills, each time from where it broke"


@case("E02", "an archive with paths and links that lead out of it")
def hostile_members(folder: Path, scale: float) -> str:
    root, outside = folder / "root", folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    deep = "/".join(["d" * 240] * 17)
    names = {
        "../x": tarfile.REGTYPE, "/tmp/vitlab-x": tarfile.REGTYPE, "a\\..\\..\\x": tarfile.REGTYPE,
        "C:x": tarfile.REGTYPE, f"{deep}/data_batch_1": tarfile.REGTYPE,
        "device/data_batch_1": tarfile.CHRTYPE, "pipe/data_batch_1": tarfile.FIFOTYPE,
        "sym/data_batch_1": tarfile.SYMTYPE, "hard/data_batch_1": tarfile.LNKTYPE,
        "data_batch_1/": tarfile.DIRTYPE,
    }  # fmt: skip
    refused = 0
    for name, kind in names.items():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        with tarfile.open(root / NAME, "w:gz") as tar:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o6777
            entry.linkname = str(outside / "secret")
            content = b"payload" if kind == tarfile.REGTYPE else b""
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        before = listing(folder / "root") + listing(outside)
        cifar(root, folder, None).refuse(NAME, code=1)
        assert before == listing(folder / "root") + listing(outside)
        assert not (folder / "runs").exists() and not Path("/tmp/vitlab-x").exists()
        refused += 1
    return f"{refused} of {refused} refused; nothing outside was written"


@case("E03", "archives that unpack to more than a disk")
def bombs(folder: Path, scale: float) -> str:
    slowest = 0.0
    makers = {
        "10 GB of zeros": zeros,
        "many members": many_members,
        "a member of a terabyte": lying_size,
        "a sparse member": sparse,
        "an archive inside": nested,
    }
    for make in makers.values():
        root = folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        make(root / NAME)
        process = cifar(root, folder, None)
        process.refuse(NAME, code=1)
        slowest = max(slowest, time.monotonic() - process.begun)
        assert listing(root) == [NAME]
    assert slowest < 10, slowest
    return f"{len(makers)} of {len(makers)} refused within {slowest:.1f} s, nothing unpacked"


def zeros(path: Path, size: int = 10_000_000_000) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        part = bytes(1 << 24)
        member = gzip.compress(part, 1)
    with open(path, "wb") as file:  # members of gzip follow each other
        for _ in range(size >> 24):
            file.write(member)


def many_members(path: Path, count: int = 1_000_000) -> None:
    block = tarfile.TarInfo("x").tobuf()
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(count // 1000):
            file.write(block * 1000)


def lying_size(path: Path) -> None:
    entry = tarfile.TarInfo("data_batch_1")
    entry.size = 1 << 40
    path.write_bytes(gzip.compress(entry.tobuf() + b"short"))


def sparse(path: Path) -> None:
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name in BATCHES:
            entry = tarfile.TarInfo(name)
            entry.pax_headers = {
                "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": name,
                "GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1",
                "GNU.sparse.map": f"{(1 << 40) - 1},1",
            }  # fmt: skip
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))


def nested(path: Path) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        entry = tarfile.TarInfo("data_batch_1")
        entry.size = 10_000
        tar.addfile(entry, io.BytesIO(bytes(10_000)))
    archive(path, {"cifar-10-python.tar.gz": inner.getvalue()})


class Canary:
    """A pickle of it makes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.file}",)


@case("E04", "a pickle payload in the place of a batch")
def pickle_in_cifar(folder: Path, scale: float) -> str:
    canary = folder / "canary"
    tried = 0
    payloads = {f"protocol {n}": pickle.dumps(Canary(canary), n) for n in range(6)}
    payloads["inside a batch"] = pickle.dumps({b"data": Canary(canary), b"labels": [0]})
    payloads["by name"] = f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    payloads["numpy's own"] = (
        f'cnumpy.testing._private.utils\nrunstring\n(S\'open("{canary}","w")\'\n(dtR.'.encode()
    )
    for payload in payloads.values():
        members = {**batches(), "data_batch_1": payload}
        for kind in ("archive", "folder"):
            root = folder / f"root-{tried}"
            if kind == "archive":
                archive(root / NAME, members)
            else:
                unpacked = root / "cifar-10-batches-py"
                unpacked.mkdir(parents=True)
                for name, raw in members.items():
                    (unpacked / name).write_bytes(raw)
            cifar(root, folder, None).refuse("data_batch_1", code=1)
            assert not canary.exists(), "the payload ran"
            tried += 1
            shutil.rmtree(root)
        if scale < 1:
            break
    hashed = archive(folder / "hashed" / NAME, {**batches(), "data_batch_1": payloads["by name"]})
    cifar(hashed.parent, folder, "0" * 64).refuse("SHA-256", code=1)
    assert not canary.exists()
    return f"{tried + 1} of {tried + 1} refused, 0 executed"


@case("E05", "labels and arrays that cannot be", short=1)
def wrong_arrays(folder: Path, scale: float) -> str:
    images = np.zeros((40, 8, 8, 1), np.uint8)
    labels = np.arange(40) % 4
    names = tuple("abcd")
    bad = labels.copy()
    bad[3::4] = [-1, 10, 255, 4, 9, -7, 5, 6, 7, 8]
    wrong = {
        "10 of 40 labels are outside 0 to 3": (images, bad),
        "[3, 7, 11, 15, 19]": (images, bad),
        "labels are float64": (images, labels + 0.7),
        "(39,)": (images, labels[:39]),
        "images are float32": (images.astype(np.float32), labels),
        "(40, 8)": (images[:, :, 0, 0], labels),
        "(40, 8, 8, 2)": (np.zeros((40, 8, 8, 2), np.uint8), labels),
        "(0, 8, 8, 1)": (images[:0], labels[:0]),
    }
    for told, (x, y) in wrong.items():
        try:
            from_arrays(x, y, names)
        except DataError as error:
            assert told in str(error), f"{told!r} is not in: {error}"
        else:
            raise AssertionError(f"accepted: {told}")
    return f"{len(wrong)} of {len(wrong)} refused with count and first five places"


def classes(folder: Path, names: tuple[str, ...], count: int = 6) -> Path:
    """A folder of class folders."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture(folder / name / f"{number}.png")
    return folder


def on_folder(dataset: Path, folder: Path, name: str, *more: str, **variables: str) -> Vitlab:
    """A short training on a folder of images."""
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), **variables}
    words = (
        "train", *TINY, "--data.dataset", dataset, "--data.train_fraction", "1", "--out",
        folder / "runs", "--name", name, "--data.validation_fraction", "0.2", *more,
    )  # fmt: skip
    return Vitlab(*words, folder=folder, before=lambda: os.environ.update(cache))


@case("E06", "folders with one class, an empty one, hidden ones, files that are no images")
def odd_folders(folder: Path, scale: float) -> str:
    two = ("a", "b")
    refused = 0

    def refuse(make: object, *told: str) -> None:
        nonlocal refused
        path = folder / f"set-{refused}"
        make(path)  # type: ignore[operator]
        on_folder(path, folder, f"refused-{refused}").refuse(*told, code=1)
        assert not (folder / "runs" / f"refused-{refused}").exists()
        refused += 1

    def with_file(path: Path, name: str, content: bytes) -> None:
        classes(path, two)
        (path / "a" / name).write_bytes(content)

    refuse(lambda p: classes(p, ("a",)), "one class")
    refuse(lambda p: [classes(p, two), (p / "c").mkdir()], "no training image of class c")
    refuse(lambda p: [classes(p / "train", two), classes(p / "val", (*two, "c"))], "c")
    refuse(lambda p: p.mkdir(), "neither class folders nor")
    refuse(lambda p: [(p / "a").mkdir(parents=True), (p / "b").mkdir()], "no train images")
    refuse(lambda p: classes(p, ("Cat", "cat")), "differ only in case")
    refuse(partial(with_file, name="x.png", content=b""), "x.png")
    refuse(partial(with_file, name="y.png", content=b"text"), "y.png", "not a PNG")

    fine = classes(folder / "fine", two)
    for hidden in (".ipynb_checkpoints", ".git"):
        (fine / hidden).mkdir()
        picture(fine / hidden / "0.png")
    for foreign in (".DS_Store", "Thumbs.db", "a/.DS_Store", "b/Thumbs.db", "a/notes.txt"):
        (fine / foreign).write_bytes(b"\0")
    (fine / "a" / "9.JPG").write_bytes(jpeg())
    (fine / "a" / "loop").symlink_to(fine / "a", target_is_directory=True)
    on_folder(fine, folder, "fine").succeed()
    run = Run(folder / "runs" / "fine")
    assert run.provenance["data"]["class_names"] == ["a", "b"]
    assert (
        run.provenance["data"]["train_images"] + run.provenance["data"]["validation_images"] == 11
    )
    (run.path / "finished.json").unlink()
    (fine / "b").rename(fine / "c")
    Vitlab("train", "--resume", run.path, folder=folder).refuse("these are not the images")
    return f"{refused} of {refused} refused by name; hidden and foreign files passed over"


def jpeg() -> bytes:
    """A JPEG of 8 x 8 grey pixels."""
    file = io.BytesIO()
    Image.new("L", (8, 8), 77).save(file, "JPEG")
    return file.getvalue()


@case("E07", "a truncated JPEG and a broken PNG among a thousand images")
def broken_images(folder: Path, scale: float) -> str:
    path = classes(folder / "set", ("a", "b"), 500)
    (path / "a" / "cut.jpg").write_bytes(jpeg()[:-20])
    png = (path / "b" / "7.png").read_bytes()
    (path / "b" / "bad.png").write_bytes(png[:60] + b"\0\0\0\0" + png[64:])
    error = on_folder(path, folder, "run").refuse("2 of 1002 images", "cut.jpg", "bad.png", code=1)
    assert not (folder / "runs").exists() and "7.png" not in error
    told = on_folder(path, folder, "run", "--data.unreadable", "skip").succeed().said()
    assert "2 of 1002 images" in told and "cut.jpg" in told and "bad.png" in told
    run = Run(folder / "runs" / "run")
    counts = run.provenance["data"]
    skipped = counts["skipped_images"]  # the others were held out for testing
    assert skipped > 0 and counts["train_images"] + counts["validation_images"] == 802 - skipped
    assert "could not be read" in report([run], out=folder / "report").read_text()
    return "2 of 1,002 named in one error; or left out, named and counted in run and report"


ODD = (
    "数据", "écureuil", "🐿 1", "two words", "-dash", "--option", "a'b\"c", "%s{}", "x" * 255,
    "[bold]red", "<b>", "#hash", "$HOME", "*",
)  # fmt: skip
"""Names of classes that a disk allows and a program may trip over."""


@case("E09", "names in every script, with spaces, dashes, newlines and broken UTF-8")
def odd_names(folder: Path, scale: float) -> str:
    path = classes(folder / "数据 écureuil", ODD)
    picture(path / "数据" / "🐿 1.png")
    locales = ("C", "C.UTF-8", "POSIX")
    for place, locale in enumerate(locales):
        on_folder(path, folder, f"run-{place}", LC_ALL=locale).succeed()
    run = Run(folder / "runs" / "run-0")
    assert run.provenance["data"]["class_names"] == sorted(ODD)
    cache = {"XDG_CACHE_HOME": str(folder / "cache")}
    Vitlab(
        "evaluate", run.path, "--device", "cpu", folder=folder,
        before=lambda: os.environ.update(cache),
    ).succeed()  # fmt: skip
    words = ("train", *TINY, "--data.dataset", path, "--data.train_fraction", "1", "--out", folder)
    words += ("--name", "command", "--data.validation_fraction", "0.2")
    Command(*words, folder=folder, LC_ALL="C").succeed()
    broken = {
        "newline": b"a\nb", "escape": b"a\x1b[31m", "latin": b"caf\xe9", "byte": b"\xff\xfe",
    }  # fmt: skip
    for name, word in broken.items():
        odd = classes(folder / name, ("a", "b"))
        os.rename(odd / "b", os.path.join(os.fsencode(odd), word))
        on_folder(odd, folder, name, LC_ALL="C").refuse("rename it", code=1)
    twins = classes(folder / "twins", ("é", "e\u0301"))
    on_folder(twins, folder, "twins").refuse("which not every disk can tell apart", code=1)
    files = classes(folder / "files", ("a", "b"))
    os.rename(files / "a" / "0.png", os.path.join(os.fsencode(files), b"a/caf\xe9\n.png"))
    on_folder(files, folder, "files", LC_ALL="C").succeed()
    wrong = classes(folder / "wrong", ("a", "b"))
    Path(os.fsdecode(os.path.join(os.fsencode(wrong), b"a/\xff.png"))).write_bytes(b"no image")
    on_folder(wrong, folder, "wrong", LC_ALL="C").refuse("1 of 13 images", code=1)
    return (
        f"{len(ODD)} names train and evaluate in {len(locales) + 1} locales; {len(broken) + 2} "
        "that cannot be are refused in one error"
    )
