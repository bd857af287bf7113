"""Verbs that use a model: predict, serve, export."""

import multiprocessing.util
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from vitlab.cli.arguments import (
    DATA_ROOT,
    DEVICE,
    JSON,
    RUN,
    argument,
    flag,
    out,
    repeated,
    verb,
)
from vitlab.cli.printing import note, print_json
from vitlab.errors import ConfigError, VitlabError
from vitlab.formatting import plain
from vitlab.progress import tracked
from vitlab.serve.limits import Limits


@verb(
    argument(
        "pictures",
        "a run, an ONNX export or a shipped model's name, if not the shipped cpu is meant; "
        "then picture files, folders and patterns",
        nargs="*",
    ),
    argument("--top", "classes to name", type=int, default=3, metavar="N"),
    argument(
        "--coverage",
        "name a set of classes that holds the true one in this percentage of pictures, 50 to 99",
        type=int,
        metavar="PERCENT",
    ),
    flag("--csv", "print CSV, a line per picture"),
    flag("--explain", "draw what the answers rest on"),
    DEVICE,
    JSON,
    examples=("vitlab predict cat.jpg", "vitlab predict runs/digits-seed0 photos --csv"),
)
def predict(args: Namespace) -> int:
    """Classify pictures, with calibrated probabilities."""
    from vitlab.answers import FORMATS, Tally, answers, find_pictures, split_source
    from vitlab.classifier import open_classifier

    if args.json and args.csv:
        raise ConfigError(["--json and --csv are two forms: choose one"])
    source, names = split_source(args.pictures)
    # By torch: for ONNX a run would have to be exported first.
    classifier = open_classifier(source, "torch", device=args.device)
    if args.explain and classifier.run is None:
        raise VitlabError(f"an export of {classifier.name} has no maps: give the run itself")
    if source is None:
        first = Path(names[0])
        mistyped = not (first.suffix or first.exists() or set(names[0]) & set("*?["))
        why = f"{plain(names[0])} is no run" if mistyped else "no run was named"
        note(f"{why}: the shipped model {classifier.name} answers")
    note(classifier.introduction, *classifier.notes)
    tally = Tally(note)
    paths = find_pictures(names)
    given = answers(classifier, paths, args.top, args.coverage)
    found = tally.counted(tracked(given, "pictures", len(paths)))
    form = "json" if args.json else "csv" if args.csv else "lines"
    for piece in FORMATS[form](found, classifier, paths, args.top):
        print(piece, end="")
    if args.explain and classifier.run is not None and tally.read:
        from vitlab.explain import explain

        folder = explain(classifier.run, tally.read, device=args.device)["folder"]
        note(f"maps in {folder}")
    elif tally.unsure:
        note(f"unsure of {tally.unsure:,}: look at the map, with --explain")
    tally.close()
    return 0


@verb(
    argument(
        "source",
        "a run, an ONNX export or a shipped model's name; default the shipped cpu",
        nargs="?",
    ),
    argument(
        "--port",
        "port to listen on, 0 for any that is free; default 8000",
        type=int,
        default=8000,
        metavar="N",
    ),
    argument(
        "--host",
        "address to listen on; default 127.0.0.1, which only this machine can reach",
        default="127.0.0.1",
        metavar="ADDRESS",
    ),
    repeated("--allow-host", "another name under which the service is asked", "NAME"),
    argument(
        "--root-path",
        "path before all addresses, such as /vit, under which a proxy shows the service",
        default="",
        metavar="PATH",
    ),
    argument(
        "--max-bytes",
        "largest picture file; memory is taken for three of them at once",
        type=int,
        default=Limits.upload,
        metavar="N",
    ),
    argument(
        "--max-pixels",
        "largest JPEG; a PNG or WebP may have a quarter of it. Each of the two processes that "
        "decode may take 10 bytes of memory and 50 nanoseconds for a pixel",
        type=int,
        default=Limits.pixels,
        metavar="N",
    ),
    examples=("vitlab serve", "vitlab serve runs/digits-seed0 --port 9000"),
)
def serve(args: Namespace) -> int:
    """Serve a page and a JSON API over one model.

    Only this machine can reach it unless --host says otherwise.
    """
    # Until requests are heard there is nothing to finish, and imports take seconds.
    handlers: dict[int, Callable[..., object]] = {
        number: lambda *_: os._exit(0) for number in (signal.SIGTERM, signal.SIGINT)
    }
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else it outlives its terminal: nohup
        handlers[signal.SIGHUP] = lambda *_: signal.raise_signal(signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        from vitlab.serve.server import serve

        serve(
            args.source,
            host=args.host,
            port=args.port,
            allow_hosts=args.allow_host,
            root_path=args.root_path,
            limits=Limits.of(args.max_bytes, args.max_pixels),
            tell=tell,
        )
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    for worker in multiprocessing.active_children():  # one that was starting knew of no stop
        worker.kill()
        worker.join()
    # Semaphores of the workers, which Python would name as leaked where it does not end by itself.
    multiprocessing.util._run_finalizers()  # type: ignore[attr-defined]
    # A thread inside native code can neither be stopped nor left behind: Python would wait for it.
    os._exit(0)


def tell(line: str) -> None:
    """Print a line, if there still is somebody who reads it."""
    try:
        print(line, flush=True)
    except OSError:  # a terminal or pipe that has closed is no reason to end the service
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@verb(
    RUN,
    argument(
        "--to",
        "ONNX in fp32 or int8, torch.export, timm, or a folder for the Hugging Face Hub",
        required=True,
        choices=("onnx", "onnx-int8", "torch", "timm", "hub"),
    ),
    out("folder to write; default export/TARGET in the run"),
    argument("--push", "upload a hub folder to a private model of this name", metavar="NAME"),
    DATA_ROOT,
    JSON,
    examples=("vitlab export cpu --to onnx", "vitlab export runs/mine --to hub --push me/mine"),
)
def export(args: Namespace) -> int:
    """Export a model for other programs, and compare its outputs."""
    from vitlab.export import export, sentences
    from vitlab.export.hub import push

    if args.push and args.to != "hub":
        raise ConfigError([f"--push uploads what --to hub writes, not --to {args.to}"])
    found = export(args.run, args.to, args.out, data_root=args.data_root)
    if args.push:
        found["address"] = push(found["folder"], args.push)
    if args.json:
        print_json(found)
        return 0
    print("\n".join(sentences(found)))
    sizes = (f"{name}, {one['bytes']:,} bytes" for name, one in found["files"].items())
    print(f"\n{found['folder']}: {'; '.join(sizes)}")
    if args.push:
        print(f"uploaded to {found['address']}")
    return 0
