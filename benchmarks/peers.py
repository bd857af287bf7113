"""Other libraries beside ours, on this machine: the training step, the input pipeline and kernels.

pip install -r benchmarks/requirements.txt
vitlab bench --out docs/results/speed            # all that concerns ours alone, first
python benchmarks/peers.py --out docs/results/speed

The parts `training` and `pipeline` of OUT/bench.json are measured anew, ours and theirs taking
turns in one process; `attention` and `dropout`, on the CPU, are added. A library that is not
installed is named.
"""

import argparse
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from pipelines import kornia, torchvision
from vitlab.bench import record
from vitlab.bench.batches import COMMON, augmented_batches, noise
from vitlab.bench.measure import interleaved
from vitlab.bench.steps import OURS, Steps, compared, plain_vit, precisions
from vitlab.bench.steps import training as our_training
from vitlab.config import Config
from vitlab.device import autocast, choose_device
from vitlab.models import build_model
from vitlab.training import autotune
from vits import VITS


@cache
def missing() -> dict[str, str]:
    """The libraries that are not installed, and how they are."""
    found = {}
    for name, build in VITS.items():
        try:
            build(plain_vit())
        except ImportError as error:
            found[name] = f"{error}: pip install -r benchmarks/requirements.txt"
    return found


def training(config: Config, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure training steps, ours and everybody's, as `vitlab.bench.steps.training` does.

    Eager; on a GPU the fastest peer compiled as well. Beside what that returns there is "dropouts",
    the layers of dropout that an image passes by row, and "missing".
    """
    found = our_training(config, device, rounds, seconds, their_steps)
    for name, variant in found["variants"].items():
        rate = 0.0 if name == "no dropout" else float(name.split()[1])
        one = config.override({"model.dropout": rate})
        builds = {OURS: build_model, **VITS}
        images = autotune.noise(config, torch.device("cpu"))[0][:2]
        counts = {n: dropouts(b(one), images) for n, b in builds.items() if n not in missing()}
        rows = variant["images_per_second"]
        variant["dropouts"] = {row: counts[row.split(", ")[0]] for row in rows}
    return {**found, "missing": missing()}


def their_steps(config: Config, device: torch.device, precision: str) -> Steps:
    """The step of every peer that is installed, in a precision."""
    batch = autotune.noise(config, device)
    models = {name: build for name, build in VITS.items() if name not in missing()}
    steps: Steps = {
        f"{name}, {precision}": their_step(build(config).to(device), config, precision, batch)
        for name, build in models.items()
    }
    if device.type == "cuda":
        timings = interleaved(steps, device=device, rounds=2, seconds=0.5)
        row = min(timings, key=lambda row: timings[row].median)
        model = models[row.rpartition(", ")[0]](config).to(device)
        compiled: nn.Module = torch.compile(model)  # type: ignore[assignment]
        steps[f"{row}, compiled"] = their_step(compiled, config, precision, batch)
    return steps


def their_step(model: nn.Module, config: Config, precision: str, batch: tuple[Tensor, Tensor]):
    """A training step as a tutorial writes it, on a fixed batch: autocast, backward, AdamW."""
    optim, (images, targets) = config.optim, batch
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay
    )
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        with autocast(images.device, precision):
            loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()

    return step


def dropouts(model: nn.Module, images: Tensor) -> int:
    """How many layers of dropout images (B, C, H, W) pass, those in modules of their own."""
    passed = []
    for module in model.modules():
        if getattr(module, "p", 0) or getattr(module, "rate", 0):
            module.register_forward_hook(lambda *_: passed.append(1))
    model.train()(images)
    return len(passed)


def pipeline(config: Config, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the input pipeline of training beside torchvision's and kornia's.

    Returns:
        {"images_per_second": {name: {median, lowest, highest}}, "ratios": {peer: times faster ours
        is}, "torchvision_workers": the count that was best, "missing", ...}
    """
    size, examples = config.train.batch_size, noise(config)
    calls: Steps = {OURS: augmented_batches(config, COMMON, device)}
    absent, workers = {}, None
    try:
        calls["torchvision"], workers = torchvision(examples, size, device)
    except ImportError as error:
        absent["torchvision"] = str(error)
    try:
        calls["kornia"] = kornia(examples, size, device)
    except ImportError as error:
        absent["kornia"] = str(error)
    timings = interleaved(calls, device=device, rounds=rounds, seconds=seconds)
    found = {"batch_size": size, "torchvision_workers": workers, "missing": absent}
    return compared(timings, size) | found


def main() -> None:
    """Measure the peers beside ours."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of bench.json")
    parser.add_argument("--parts", help="training,pipeline,attention,dropout; default all")
    parser.add_argument("--device", default="auto", help="of training and pipeline")
    parser.add_argument("--rounds", type=int, default=6, help="turns that contenders take")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    args = parser.parse_args()
    device = choose_device(args.device)
    how = plain_vit(), device, args.rounds, args.seconds
    on_cpu = precisions(plain_vit(), torch.device("cpu")), args.rounds, args.seconds
    parts = {
        "training": partial(training, *how),
        "pipeline": partial(pipeline, *how),
        "attention": partial(kernels.attention, *on_cpu),
        "dropout": partial(kernels.dropout, *on_cpu),
    }
    if args.parts:
        parts = {part: parts[part] for part in args.parts.split(",")}
    record(args.out, parts, device)


if __name__ == "__main__":
    main()
