"""Images per second of the training step: ours beside the same architecture of others."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.bench.measure import Timing, interleaved, matrix_peak
from vitlab.bench.peers import PEERS, missing
from vitlab.config import Config
from vitlab.device import DTYPES, Choice, autocast, choose_precision
from vitlab.models import build_model
from vitlab.models.cost import cost
from vitlab.train.state import TrainState
from vitlab.train.step import Stepper

Step = Callable[[], object]


def training(config: Config, device: torch.device, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure training steps of one architecture, all in this process and interleaved.

    Eager everywhere; on a GPU ours also as a CUDA graph and compiled, and the fastest eager peer
    compiled. Peers are stepped as their users do: autocast, backward, torch's AdamW.

    Returns:
        {"images_per_second": {name: {median, lowest, highest}}, "ratios": {peer: {...}},
        "parameters", "missing", "matrix_peak", "share_of_peak", ...}
    """
    precision = choose_precision(config.train, device)
    batch = random_batch(config, device)
    steps, parameters, absent = contenders(config, device, precision, batch)
    timings = interleaved(steps, device=device, rounds=rounds, seconds=seconds)
    if device.type == "cuda":
        fastest = min((timings[name].median, name) for name in timings if name in PEERS)[1]
        compiled = {
            "vitlab, graph": our_step(config, device, precision, "graph", batch),
            "vitlab, compiled": our_step(config, device, precision, "on", batch),
            f"{fastest}, compiled": their_step(
                torch.compile(PEERS[fastest][0](config).to(device)),  # type: ignore[arg-type]
                config, precision, batch,
            ),
        }  # fmt: skip
        both = {**steps, **compiled}
        timings = interleaved(both, device=device, rounds=rounds, seconds=seconds)
    size = config.train.batch_size
    peak = matrix_peak(device, DTYPES[precision.word])
    flops = 6 * cost(config).macs * size  # two per multiply-add; backward costs two forwards
    return {
        "device": str(device),
        "precision": precision.word,
        "batch_size": size,
        "rounds": rounds,
        "images_per_second": {name: timing.rate(size) for name, timing in timings.items()},
        "ratios": ratios(timings),
        "parameters": parameters,
        "missing": absent,
        "matrix_peak": peak,
        "share_of_peak": {name: flops / t.median / peak for name, t in timings.items()},
    }


def contenders(
    config: Config, device: torch.device, precision: Choice, batch: tuple[Tensor, Tensor]
) -> tuple[dict[str, Step], dict[str, int], dict[str, str]]:
    """Eager steps by name, parameter counts, and which package is missing for whom."""
    steps: dict[str, Step] = {"vitlab": our_step(config, device, precision, "off", batch)}
    parameters = {"vitlab": cost(config).parameters}
    absent = {}
    for name, (build, _) in PEERS.items():
        if package := missing(name):
            absent[name] = package
            continue
        model = build(config).to(device)
        parameters[name] = sum(parameter.numel() for parameter in model.parameters())
        steps[name] = their_step(model, config, precision, batch)
    return steps, parameters, absent


def our_step(
    config: Config,
    device: torch.device,
    precision: Choice,
    compilation: str,
    batch: tuple[Tensor, Tensor],
    memory_format: torch.memory_format = torch.channels_last,
) -> Step:
    """A training step of vitlab on a fixed batch."""
    size = config.data.image_size
    assert size is not None
    model = build_model(config).to(device).to(memory_format=memory_format)  # type: ignore[call-overload]
    state = TrainState.build(model.train(), config.optim, size, precision.word)
    stepper = Stepper(state, config, precision, Choice(compilation, "measured"))
    return lambda: stepper(*batch, share=1.0, seed=0)


def their_step(
    model: nn.Module, config: Config, precision: Choice, batch: tuple[Tensor, Tensor]
) -> Step:
    """A training step as a tutorial writes it, on a fixed batch."""
    optim, (images, targets) = config.optim, batch
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay
    )
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        with autocast(images.device, precision.word):
            loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()

    return step


def random_batch(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise and one-hot targets in the shape of a batch: speed does not depend on pixels."""
    data, count = config.data, config.train.batch_size
    assert data.image_size and data.channels and data.classes
    labels = torch.randint(data.classes, (count,), device=device)
    images = torch.randn(count, data.channels, *data.image_size, device=device)
    return images, F.one_hot(labels, data.classes).float()


def ratios(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """How many times faster ours is, round by round: eager against eager, best against compiled."""
    ours = timings["vitlab"]
    best = timings.get("vitlab, compiled", ours)
    return {
        name: (best if name.endswith("compiled") else ours).ratio(timing)
        for name, timing in timings.items()
        if not name.startswith("vitlab")
    }
