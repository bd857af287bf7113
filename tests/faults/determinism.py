"""F: equal config, seed and threads give equal bits; what may differ is said and stored."""

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import NotRun, case
from trial import TRAIN, Command, die_after, equal, fingerprint, start, until, whole

from vitlab.config import Config, DataConfig, OptimConfig, TrainConfig, ViTConfig
from vitlab.run import Run


@case("F01", "the same training twice, and with another seed")
def twice(folder: Path, scale: float) -> str:
    one, again = whole(folder, "one"), whole(folder, "again")
    equal(again, one)
    other = whole(folder, "other", (*TRAIN, "--train.seed", "1"))
    assert fingerprint(other.checkpoint()) != fingerprint(one.checkpoint())
    often = ("--train.checkpoint-epochs", "0.1", "--train.evaluate-epochs", "0.4")
    cadence = whole(folder, "cadence", (*TRAIN, *often, "--train.log-steps", "7"))
    ours, theirs = cadence.checkpoint(), one.checkpoint()
    for name in ("model", "average", "optimizer"):
        assert getattr(ours, name).read_bytes() == getattr(theirs, name).read_bytes()
    return "equal bits with one seed, however often it logs, judges or saves; others with another"


@case("F02", "forked trials and the real command line")
def forked_and_real(folder: Path, scale: float) -> str:
    reference = whole(folder)
    Command("train", *TRAIN, "--out", folder, "--name", "real", folder=folder).succeed()
    equal(Run(folder / "real"), reference)
    return "equal bits"


@case("F05", "one thread, then resumed with two")
def other_threads(folder: Path, scale: float) -> str:
    assert start(folder, "run", before=lambda: die_after(12)).wait() == 77
    run = Run(folder / "run")
    stored = {name: run.provenance[name] for name in ("threads", "torch", "cpu_capability")}
    assert stored["threads"] == 1 and all(stored.values())
    process = Command(
        "train", "--resume", run.path, folder=folder, OMP_NUM_THREADS="2", MKL_NUM_THREADS="2"
    ).succeed()
    if "threads was 1 and is 2" not in process.said():
        raise NotRun("needs two cores: torch kept to one thread")
    assert "not bit-exact" in process.said()
    assert run.finished and any("not bit-exact" in alarm for alarm in run.finished["alarms"])
    return f"allowed, warned of, remembered; stored: {', '.join(stored)}"


UNEVEN = Config(
    data=DataConfig(dataset="arrays", validation_fraction=10_001 / 10_021),
    model=ViTConfig(patch_size=4, width=8, depth=1, heads=1),
    optim=OptimConfig(optimizer="sgd", lr=0.1, warmup_epochs=0.0),
    train=TrainConfig(epochs=1, batch_size=20, log_steps=1),
)


@case("F06", "10,001 validation images on two processes; a GPU where there is one", minutes=15)
def uneven_ranks(folder: Path, scale: float) -> str:
    import torch

    gpu = on_a_gpu(folder) if torch.cuda.is_available() else "no GPU here"
    one = judged(folder, 1)
    two = judged(folder, 2)
    assert one["images"] == two["images"] == 10_001, (one, two)
    assert one["accuracy"] == two["accuracy"], (one, two)
    assert abs(one["loss"] - two["loss"]) < 1e-6 * one["loss"], (one, two)
    return f"10,001 counted, accuracy as in one process, loss within 1e-6; {gpu}"


def judged(folder: Path, world: int) -> dict[str, float]:
    """Validation of one step that so many processes take together."""
    import os

    from vitlab.training import train

    labels = np.repeat([0, 1], [5010, 5011])
    draws = np.random.default_rng(0)
    images = draws.integers(0, 200, (len(labels), 8, 8, 1)) + 40 * labels[:, None, None, None]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    config = replace(UNEVEN, data=replace(UNEVEN.data, image_size=(8, 8), channels=1, classes=2))
    pids = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            log = os.open(folder / f"rank-{world}-{rank}", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
            os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {k: str(v) for k, v in place.items()}
            code = 1
            try:
                data = (images.astype(np.uint8), labels)
                train(config, data=data, out=folder, name=f"world-{world}", device="cpu")
                code = 0
            finally:
                import traceback

                traceback.print_exc()
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    said = "".join(path.read_text() for path in folder.glob(f"rank-{world}-*"))
    assert not any(codes), said
    finished = Run(folder / f"world-{world}").finished
    assert finished is not None
    return finished["validation"]


def on_a_gpu(folder: Path) -> str:
    """Deterministic training twice, images resized on the way; fp16 and its scaler resumed."""
    words = (*TRAIN[:-2], "--device", "cuda", "--train.deterministic", "on")
    words += ("--train.small-size", "4,4", "--train.small-epochs", "1")
    for name in ("one", "two"):
        Command("train", *words, "--out", folder, "--name", name, folder=folder).succeed()
    equal(Run(folder / "two"), Run(folder / "one"))
    half = (*words, "--train.precision", "fp16")
    Command("train", *half, "--out", folder, "--name", "half", folder=folder).succeed()
    cut = Command("train", *half, "--out", folder, "--name", "cut", folder=folder)
    path = folder / "cut"
    until(lambda: Run.exists(path) and Run(path).checkpoints(), cut)
    cut.kill()
    Command("train", "--resume", path, folder=folder).succeed()
    equal(Run(path), Run(folder / "half"))
    return "on a GPU equal bits twice, and with fp16 after a kill, its scaler's among them"
