"""Run the catalogue of faults: `python tests/faults [ID ...] [--short] [--json FILE]`.

The long form is `make faults`; the tests run the short one. One line per case, with its figure
and its seconds, and a count at the end. Exit code 1 if a case failed.
"""

import argparse
import gc
import importlib
import os
import platform
import sys
import time
from pathlib import Path

for name in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{name}_NUM_THREADS"] = "1"  # before numpy and torch are imported
for name in [name for name in os.environ if name.startswith("VITLAB_")]:
    del os.environ[name]  # a person's data sets and runs are not a matter of the cases


def main() -> int:
    """Run what was asked for and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "ids", nargs="*", metavar="ID", help="cases to run, such as A01; default all"
    )
    parser.add_argument("--short", action="store_true", help="the form of half a minute")
    parser.add_argument("--scale", type=float, default=1.0, help="of the trials; default 1")
    parser.add_argument("--beside", type=int, default=2, help="cases side by side; default 2")
    parser.add_argument(
        "--precision", default="fp32", help="of the trainings that are disturbed; default fp32"
    )
    parser.add_argument("--json", type=Path, help="write the summary here")
    args = parser.parse_args()

    import harness
    from harness import CASES, Outcome, conduct, summarise

    harness.PRECISION = args.precision
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__main__", "harness") and not path.stem.startswith("test_"):
            importlib.import_module(path.stem)
    gc.freeze()  # what is here already is no concern of the processes forked from this one
    if unknown := [one for one in args.ids if one not in CASES]:
        parser.error(f"no case {', '.join(unknown)}: choose from {', '.join(sorted(CASES))}")
    chosen = [CASES[one] for one in args.ids or sorted(CASES)]
    if args.short:
        chosen = [one for one in chosen if one.short is not None]

    def told(outcome: Outcome) -> None:
        head = f"{outcome.id}  {outcome.status:8}{outcome.seconds:7.1f} s  {outcome.title}"
        print(f"{head}: {outcome.figure}", flush=True)

    begun = time.monotonic()
    scales = [(one.short if args.short else args.scale) or 0.0 for one in chosen]
    outcomes = conduct(zip(chosen, scales, strict=True), told, args.beside)
    record = summarise(outcomes, time.monotonic() - begun, machine())
    if args.json:
        from vitlab.files import write_json

        write_json(args.json, record)
    counts = ", ".join(f"{count} {word}" for word, count in record["counts"].items())
    print(f"{len(outcomes)} cases in {record['seconds']} s: {counts}")
    return 1 if record["counts"]["failed"] else 0


def machine() -> dict[str, object]:
    """What the cases ran on."""
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
