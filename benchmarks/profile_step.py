"""Where the time of a training step goes, by operation of torch.

python benchmarks/profile_step.py vit-tiny --precision bf16 --out docs/results/step-profile.json
"""

import argparse
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from vitlab.bench.steps import cifar
from vitlab.files import write_json
from vitlab.recipes import recipe
from vitlab.training.autotune import noise_step, rules
from vitlab.training.provenance import device_name

CPU = torch.device("cpu")
WARM_UP, STEPS, SHOWN = 3, 5, 20
MATRIX = ("aten::mm", "aten::addmm", "aten::bmm")


def main() -> None:
    """Profile a few steps of a recipe on noise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = cifar(recipe(args.recipe), precision=args.precision)
    settings = rules(config, CPU).values
    step = noise_step(config, CPU, settings)
    for _ in range(WARM_UP):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(STEPS):
            step()
    times = {one.key: one.self_cpu_time_total for one in profiled.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=lambda key: -times[key])[:SHOWN]
    record = {
        "command": f"python benchmarks/profile_step.py {args.recipe} --precision {args.precision}",
        "computed_in": ", ".join(settings),
        "dropout": getattr(config.model, "dropout", 0.0),
        "batch_size": config.train.batch_size,
        "machine": {
            "device": device_name(CPU),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        },
        "milliseconds_per_step": total / STEPS / 1e3,
        "matrix_products": sum(times.get(key, 0.0) for key in MATRIX) / total,
        "share": {key: times[key] / total for key in largest},
    }
    write_json(args.out, record)
    print(f"{record['matrix_products']:.1%} in matrix products")


if __name__ == "__main__":
    main()
