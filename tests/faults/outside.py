"""R and B07: nothing that is handed in is run, and nothing is sent or told to anybody."""

import getpass
import os
import pickle
import re
import shutil
import socket
import subprocess
import zipfile
from pathlib import Path

from commands import picture
from harness import NotRun, case, without_network
from image_sets import Canary
from trial import TINY, TRAIN, Vitlab, tested, whole

import vitlab
from vitlab.cli import VERBS

PACKAGE = Path(vitlab.__file__).parent


@case("B07", "a pickle payload for every verb that opens a model, under every name")
def payloads(folder: Path, scale: float) -> str:
    canary, tried = folder / "canary", 0
    payload = pickle.dumps(Canary(canary))
    run = whole(folder, words=TINY)
    for name in ("x.pt", "x.pth", "x.ckpt", "x.bin", "x.pkl", "x.safetensors", "x.zip", "x.npy"):
        file = folder / name
        file.write_bytes(payload)
        if name == "x.zip":
            with zipfile.ZipFile(file, "w") as packed:
                packed.writestr("archive/data.pkl", payload)
        commands = [
            ("train", *TINY, "--from", file, "--out", folder, "--name", "started"),
            ("train", "--resume", file),
            *((verb, file) for verb in ("evaluate", "features", "explain", "show", "export")),
            *((verb, file) for verb in ("serve", "report", "leaderboard")),
            ("compare", file, run.path),
        ]
        picture(folder / "p.png")
        commands.append(("predict", file, folder / "p.png"))
        for words in commands:
            if words[0] not in VERBS:
                continue
            said = Vitlab(*words, folder=folder).refuse()
            assert not canary.exists(), f"{words} ran the payload"
            if "--from" in words and name in ("x.pt", "x.pth", "x.ckpt", "x.bin", "x.pkl"):
                assert "safetensors.torch.save_file" in said, said
            tried += 1
    for checkpoint in run.checkpoints():
        for file in (checkpoint.model, checkpoint.average, checkpoint.optimizer):
            file.write_bytes(payload)
    (run.path / "finished.json").unlink()
    for words in (("train", "--resume", run.path), ("evaluate", run.path), ("explain", run.path)):
        Vitlab(*words, folder=folder).refuse("no sound checkpoint", code=1)
        assert not canary.exists(), f"{words} ran the payload"
        tried += 1
    found = [
        f"{path.name}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"weights_only=False|allow_pickle=True|pickle\.loads?\(|\.extractall\(", line)
    ]
    assert not found, found
    return f"{tried} of {tried} refused, 0 executed"


TOUR = (
    ("train", *TRAIN, "--train.epochs", "1", "--out", "{runs}", "--name", "a"),
    ("train", *TRAIN, "--train.epochs", "1", "--train.seed", "1", "--out", "{runs}", "--name", "b"),
    ("evaluate", "{runs}/a", "--split", "test", "--device", "cpu"),
    ("evaluate", "{runs}/b", "--split", "test", "--device", "cpu"),
    ("features", "{runs}/a", "--device", "cpu"),
    ("explain", "{runs}/a", "--count", "1", "--device", "cpu"),
    ("explore", "digits", "--out", "{runs}/explore", "--device", "cpu"),
    ("predict", "{runs}/a", "{picture}", "--device", "cpu"),
    ("compare", "{runs}/a", "{runs}/b"),
    ("report", "{runs}/a"),
    ("leaderboard", "{runs}"),
    ("export", "{runs}/a", "--to", "onnx"),
    (
        "study", "--recipe", "digits", "--vary", "model.norm=rms", "--seeds", "1", *TINY[1:-2],
        "--out", "{runs}/study", "--yes", "--device", "cpu", "--workers", "1",
    ),
    ("report", "{runs}/study"),
    ("recipes",),
    ("datasets",),
    ("show", "cpu"),
    ("doctor",),
)  # fmt: skip
"""What a user does with vitlab, from training to reports."""


def tour(folder: Path) -> list[tuple[str, ...]]:
    """The tour in a folder, those verbs left out that there are not."""
    picture(folder / "picture.png")
    places = {"runs": str(folder / "runs"), "picture": str(folder / "picture.png")}
    return [tuple(word.format(**places) for word in words) for words in TOUR if words[0] in VERBS]


@case("R03", "the whole tour without a network, and every connection that it asks for", minutes=20)
def offline(folder: Path, scale: float) -> str:
    os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "VITLAB_RUNS": str(folder / "runs")}
    if not shutil.which("strace"):
        raise NotRun("needs strace: apt-get install strace")
    without_network()
    connections = []
    for number, words in enumerate(tour(folder)):
        process = Vitlab(*words, folder=folder, held=True)
        trace = folder / f"connect-{number}"
        options = ["-f", "-e", "trace=connect,sendto", "-o", str(trace)]
        with subprocess.Popen(
            ["strace", *options, "-p", str(process.pid)], stderr=subprocess.PIPE, text=True
        ) as strace:
            assert strace.stderr is not None
            if "attached" not in (line := strace.stderr.readline()):
                process.kill()
                raise NotRun(f"strace may not look at another process here: {line.strip()}")
            process.go()
            process.wait(300)
        process.succeed()
        for line in trace.read_text().splitlines():
            if re.search(r"AF_INET6?\b", line) and not re.search(r'"127\.|"::1"', line):
                connections.append(f"{words[0]}: {line}")
    assert not connections, connections[:5]
    pages = [*(folder / "runs").rglob("*.html")]
    for page in pages:
        asked = re.findall(LOADED, page.read_text())
        assert not asked, (page, asked[:3])
    number = len(tour(folder))
    return f"{number} commands without a network, 0 connections, {len(pages)} pages load nothing"


LOADED = (
    r"""<(?!a\b)[^>]*(?:src|href|action)\s*=\s*["']?(?:https?:)?//[^>]*>"""
    r"""|url\(["']?https?:|@import"""
)
"""What makes a page ask somebody else for something; a link that one may click does not."""


@case("R04", "no home, user, host or environment in what a run leaves", minutes=20)
def nameless(folder: Path, scale: float) -> str:
    secret = "s3cr3t-token-in-the-environment"
    home = folder / "home" / "jane.roe.1987"
    home.mkdir(parents=True)
    os.environ |= {"HOME": str(home), "API_TOKEN": secret, "USER": "jane.roe.1987"}
    os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "VITLAB_RUNS": "runs"}
    os.chdir(home)
    picture(home / "picture.png")
    places = {"runs": "runs", "picture": "picture.png"}
    for words in TOUR:
        if words[0] in VERBS and words[0] not in ("doctor", "datasets"):
            given = [word.format(**places) for word in words]
            Vitlab(*given, folder=folder).succeed()
    words = [secret, str(home), "jane.roe.1987", str(Path(__file__).home())]
    host, user = socket.gethostname(), getpass.getuser()
    words += [word for word in (host, user) if len(word) > 4]
    told, looked = [], 0
    for path in home.rglob("*"):
        # What a trial of a study printed is kept as it was printed, paths included.
        if path.is_file() and path.name != "picture.png" and path.suffix != ".log":
            content = path.read_bytes()
            looked += 1
            told += [f"{path.name}: {word}" for word in words if word.encode() in content]
    assert not told, told[:10]
    return f"{looked} of {looked} files, all but the logs of trials, name nobody"


@case("R01", "names that carry markup, in a report and in a browser")
def hostile_names(folder: Path, scale: float) -> str:
    return tested("tests/report/test_browser.py", "tests/report/test_report.py", "-k", "names")
