"""D: a run has one writer, and a command or a config with mistakes is told all of them."""

import os
import re
import shutil
import socket
import time
from pathlib import Path

from harness import case
from trial import TINY, TRAIN, Command, Vitlab, equal, start, until, whole

from vitlab.run import Run


@case("D01", "a second process on a run that is being trained", short=0.5)
def second_writer(folder: Path, scale: float) -> str:
    reference = whole(folder)
    first = start(folder, "run")
    until(lambda: list((folder / "run").glob("checkpoints/step-*")), first)
    slowest = 0.0
    for words in (("--resume", folder / "run"), (*TRAIN, "--out", folder, "--name", "run")):
        first.stop()
        second = Vitlab("train", *words, folder=folder)
        second.refuse(f"pid {first.pid} on {socket.gethostname()}, started 2", code=1)
        slowest = max(slowest, time.monotonic() - second.begun)
    for verb in ("show", "evaluate") if scale == 1 else ("show",):
        Vitlab(verb, folder / "run", folder=folder).succeed()
    first.resume()
    first.succeed()
    equal(Run(folder / "run"), reference)
    return f"2 of 2 refused within {slowest:.1f} s, readers work, then equal"


MISTAKES = {
    "a field": (["train", "digits", "--optim.learnig_rate", "1e-3"], "unknown option"),
    "a field's short name": (["train", "digits", "--optim.lrr", "1e-3"], "did you mean optim.lr"),
    "an option": (["train", "digits", "--epoch", "3"], "did you mean train.epochs?"),
    "an axis": (["study", "--recipe", "digits", "--vary", "model.nrom=rms"], "model.norm"),
    "a recipe": (["train", "digit"], "did you mean digits?"),
    "a verb": (["trian", "digits"], "did you mean train?"),
    "a study's axis": (["study", "a.toml"], "a.toml:4: unknown name model.nrom"),
    "a study's common field": (["study", "b.toml"], "b.toml:4: unknown name"),
    "a study's key": (["study", "c.toml"], "c.toml:3: unknown name varry"),
}

STUDIES = {
    "a": 'question = "?"\nrecipe = "digits"\n[vary]\nmodel.nrom = ["rms"]\n',
    "b": 'question = "?"\nrecipe = "digits"\n[common]\ntrain.epoch = 3\n[vary]\n'
    'model.norm = ["rms"]\n',
    "c": 'question = "?"\nrecipe = "digits"\n[varry]\nmodel.norm = ["rms"]\n',
}


@case("D03", "misspelt names: options, fields, axes, studies, configs")
def misspelt(folder: Path, scale: float) -> str:
    place = folder / "here"
    place.mkdir()
    for name, text in STUDIES.items():
        (place / f"{name}.toml").write_text(text)
    before = sorted(place.rglob("*"))
    for words, told in MISTAKES.values():
        process = Vitlab(*words, folder=folder, before=lambda: os.chdir(place))
        process.refuse(told, code=2)
        assert sorted(place.rglob("*")) == before, "something was created"
    run = whole(folder, words=TINY)
    file = run.path / "config.json"
    file.write_text(file.read_text().replace('"lr"', '"learnig_rate"'))
    Vitlab("train", "--resume", run.path, folder=folder).refuse("optim.learnig_rate", "config.json")
    return f"{len(MISTAKES) + 1} of {len(MISTAKES) + 1} named, with the likely name; nothing made"


@case("D04", "values that cannot be: all told at once")
def impossible(folder: Path, scale: float) -> str:
    wrong = {
        "train.epochs": "-1", "model.dropout": "1.5", "optim.lr": "nan",
        "optim.optimizer": "adm", "data.validation_fraction": "2", "train.precision": "fp7",
    }  # fmt: skip
    words = [word for name, value in wrong.items() for word in (f"--{name}", value)]
    out = folder / "runs"
    process = Vitlab("train", "vit-tiny", *words, "--model.heads=5", "--out", out, folder=folder)
    error = process.refuse(*wrong, "heads=5", "problems", "adamw", "fp32", code=2)
    assert len(error.splitlines()) <= 15 and not out.exists()
    told = int(re.findall(r"(\d+) problems", error)[0])
    assert told == len(wrong) + 1, error
    Vitlab("train", "vit-tiny", "--model.patch_size", "7", "--out", out, folder=folder).refuse(
        "patch_size", "7", "32", code=2
    )
    names = ("../x", "..", "", ".hidden", "a/b", "/tmp/x")
    for name in names:
        start(folder, name, TINY).refuse("is no folder name", code=1)
    assert not (folder.parent / "x").exists()
    run = whole(folder, words=(*TINY, "--optim.lr", "1e-3"))
    assert run.config.optim.lr == 0.001
    classes = folder / "classes"
    for name in ("no", "0123", "1e3", "null"):
        (classes / name).mkdir(parents=True)
        for number in range(6):
            picture(classes / name / f"{number}.png")
    config = ("--data.dataset", classes, "--data.image_size", "8,8", "--data.train_fraction", "1")
    words = ("train", *TINY, *config, "--data.validation_fraction", "0.2", "--data.channels", "1")
    Vitlab(*words, "--out", folder, "--name", "named", folder=folder).succeed()
    assert Run(folder / "named").provenance["data"]["class_names"] == ["0123", "1e3", "no", "null"]
    shutil.rmtree(classes)
    return f"{told} problems told at once, {len(names)} names refused, class names stay text"


def picture(path: Path, seed: int = 0) -> None:
    """A grey picture of 8 x 8 pixels."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng([seed, *path.name.encode()])
    Image.fromarray(draws.integers(0, 256, (8, 8), np.uint8)).save(path)


@case("D05", "the real command line: --help, a mistake, a missing run")
def real_command(folder: Path, scale: float) -> str:
    help_ = Command("--help", folder=folder)
    mistake = Command("train", "digits", "--epoch", "3", folder=folder)
    missing = Command("evaluate", folder / "none", folder=folder)
    help_.succeed()
    mistake.refuse("did you mean train.epochs?", code=2)
    missing.refuse("is not a run", code=1)
    return "3 of 3"
