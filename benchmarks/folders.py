"""`vitlab fit` beside the pipeline that people write by hand, on four folders of pictures.

apt-get download tuxpaint-stamps-default fonts-noto-color-emoji unicode-data
for file in *.deb; do dpkg-deb -x $file PACKAGES; done
pip install 'vitlab[backbone]' efficientnet-lite-pytorch scikit-learn
python benchmarks/folders.py --packages PACKAGES --folder FOLDER

Both use EfficientNet-Lite0's ImageNet weights and the same test images, 20 % of every class as
vitlab draws them. By hand: the reference network of `efficientnet-lite-pytorch`, pictures stretched
to 224 x 224 by Pillow, scikit-learn's logistic regression as it comes. Whatever lies in FOLDER is
used as it is; docs/results/folders.json is written anew, a set at a time.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from vitlab.config import DataConfig
from vitlab.data import load_test, open_dataset
from vitlab.data.images import read
from vitlab.data.labelled import key_of
from vitlab.evaluate import evaluate
from vitlab.files import read_json, write_json
from vitlab.pretrained.backbones import package_file
from vitlab.selection import fit
from vitlab.stats import bootstrap, mcnemar, wilson
from vitlab.training.provenance import device_name

RECORD = Path("docs/results/folders.json")
FEWEST = 15
"""Pictures of a class of stamps."""

GROUPS = {
    "Smileys & Emotion": "smileys",
    "People & Body": "people",
    "Animals & Nature": "nature",
    "Food & Drink": "food",
    "Travel & Places": "travel",
}
"""Groups of emoji, and their class folders."""


def digits(folder: Path, packages: Path) -> None:
    """The digits of scikit-learn, of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for place, (image, label) in enumerate(zip(np.asarray(pixels), labels, strict=True)):
        eight = (image.reshape(8, 8) * 15.9).astype(np.uint8)
        save(Image.fromarray(eight), folder / str(label), place)


def stamps(folder: Path, packages: Path) -> None:
    """Kinds of animals, food, plants and things in town, most of them photographs."""
    source = packages / "usr/share/tuxpaint/stamps"
    for kind in ("animals", "food", "plants", "town"):
        for group in sorted((source / kind).iterdir()):
            files = sorted(group.rglob("*.png"))
            if len(files) >= FEWEST:
                for place, file in enumerate(files):
                    save(Image.open(file), folder / group.name, place)


def emoji(folder: Path, packages: Path) -> None:
    """Emoji of one code point, in five of Unicode's groups; the others hold all sorts of things."""
    font = packages / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
    drawn = ImageFont.truetype(str(font), 109)  # the one size that is in the font
    group = ""
    lines = (packages / "usr/share/unicode/emoji/emoji-test.txt").read_text().splitlines()
    for place, line in enumerate(lines):
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        points, _, status = line.partition(";")
        codes = [code for code in points.split() if code != "FE0F"]
        known = status.strip().startswith("fully-qualified") and group in GROUPS
        if known and len(codes) == 1:
            image, text = Image.new("RGB", (136, 128), "white"), chr(int(codes[0], 16))
            ImageDraw.Draw(image).text((0, 0), text, font=drawn, embedded_color=True)
            save(image, folder / GROUPS[group], place)


def shapes(folder: Path, packages: Path) -> None:
    """100 circles, squares and triangles each in noise, of 120 to 200 pixels on a side."""
    draw = np.random.default_rng(0)
    for name in ("circle", "square", "triangle"):
        for place in range(100):
            width, height = draw.integers(120, 201, 2).tolist()
            back = draw.integers(0, 256, 3)
            front = tuple(((back + draw.integers(80, 171, 3)) % 256).tolist())
            image = Image.new("RGB", (width, height), tuple(back.tolist()))
            r = int(draw.integers(20, 51))
            x, y = (int(draw.integers(r, side - r + 1)) for side in (width, height))
            pen, box = ImageDraw.Draw(image), (x - r, y - r, x + r, y + r)
            match name:
                case "circle":
                    pen.ellipse(box, fill=front)
                case "square":
                    pen.rectangle(box, fill=front)
                case _:
                    pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=front)
            noisy = np.asarray(image) + draw.normal(0, 12, (height, width, 3))
            save(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), folder / name, place)


class Source(NamedTuple):
    """Where a set comes from."""

    package: str
    license: str
    make: Callable[[Path, Path], None]
    """Writes its class folders, given where they go and where packages were unpacked."""


SETS = {
    "digits": Source("scikit-learn (PyPI)", "BSD-3-Clause", digits),
    "stamps": Source("tuxpaint-stamps-default (Debian)", "GPL-2", stamps),
    "emoji": Source("fonts-noto-color-emoji, unicode-data (Debian)", "OFL-1.1, Unicode", emoji),
    "shapes": Source("drawn here", "", shapes),
}


def save(image: Image.Image, folder: Path, number: int) -> None:
    """Write a picture into a class folder."""
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{number:04d}.png")


def by_hand(folder: Path, test: np.ndarray) -> dict[int, bool]:
    """Whether the pipeline by hand is right about each test picture, by its key.

    Args:
        test: keys of the test pictures.
    """
    from efficientnet_lite_pytorch import EfficientNet
    from sklearn.linear_model import LogisticRegression

    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(package_file()))
    network.eval()
    features, keys, labels = [], [], []
    for file in sorted(folder.rglob("*.png")):
        pixels = read(file, (224, 224))
        image = Image.fromarray(pixels.squeeze()).convert("RGB").resize((224, 224))
        normal = (torch.from_numpy(np.array(image)).movedim(2, 0)[None] - 127.0) / 128
        with torch.inference_mode():
            features.append(network.extract_features(normal).mean((2, 3))[0].numpy())
        keys.append(key_of(pixels))
        labels.append(file.parent.name)
    x, y, names = np.array(features), np.array(labels), np.array(keys, np.uint64)
    held_out = np.isin(names, test)
    classifier = LogisticRegression(max_iter=1000).fit(x[~held_out], y[~held_out])
    right = classifier.predict(x[held_out]) == y[held_out]
    return dict(zip(names[held_out].tolist(), right.tolist(), strict=True))


def compare(name: str, folder: Path, minutes: float) -> dict[str, Any]:
    """What both reach on a set, and how they differ on the same test pictures."""
    data = DataConfig(dataset=str(folder), image_size=(32, 32), channels=3)
    test = load_test(open_dataset(data))
    begun = time.perf_counter()
    theirs = by_hand(folder, test.keys)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    run = fit(folder, minutes=minutes, out=folder.parent / "runs", name=name)
    our_seconds = time.perf_counter() - begun
    result = evaluate(run, "test", pictures=False)
    with np.load(run.predictions("test"), allow_pickle=False) as stored:
        right = stored["logits"].argmax(1) == stored["labels"]
    first, second = right, np.array([theirs[key] for key in test.keys.tolist()])
    assert run.selection
    return {
        "name": name,
        "package": SETS[name].package,
        "license": SETS[name].license,
        "pictures": sum(1 for _ in folder.rglob("*.png")),
        "test_pictures": len(right),
        "classes": list(test.class_names),
        "by_hand": {**accuracy(second), "seconds": seconds},
        "fit": {
            **accuracy(first),
            "seconds": our_seconds,
            "minutes": minutes,
            "chosen": run.selection["chosen"],
            "validation": next(
                row["accuracy"]
                for row in run.selection["candidates"]
                if row["candidate"] == run.selection["chosen"]
            ),
            "test_openings": result["test_openings"],
            "config_sha256": run.config.sha256,
        },
        "difference": float(first.mean() - second.mean()),
        "difference_interval": list(bootstrap(first[None], second[None])),
        "p": mcnemar(int((first & ~second).sum()), int((~first & second).sum())),
    }


def accuracy(right: np.ndarray) -> dict[str, Any]:
    """Accuracy and its interval of right and wrong answers (N,)."""
    return {
        "accuracy": float(right.mean()),
        "interval": list(wilson(int(right.sum()), len(right))),
    }


def main() -> None:
    """Make the folders, compare on each, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="where they were unpacked")
    parser.add_argument("--folder", type=Path, required=True, help="for the pictures and the runs")
    parser.add_argument("--sets", default=",".join(SETS), help="default %(default)s")
    parser.add_argument("--minutes", type=float, default=2.0, help="that fit has for each")
    args = parser.parse_args()
    record: dict[str, Any] = read_json(RECORD) if RECORD.exists() else {"sets": []}
    device = torch.device("cpu")
    for name in args.sets.split(","):
        folder = args.folder / name
        if not folder.exists():
            SETS[name].make(folder, args.packages)
        found = compare(name, folder, args.minutes)
        found["command"] = (
            "python benchmarks/folders.py --packages PACKAGES --folder FOLDER --minutes "
            f"{args.minutes:g}"
        )
        found["machine"] = {
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        }
        done = {one["name"]: one for one in record["sets"]} | {name: found}
        record["sets"] = [done[each] for each in SETS if each in done]
        write_json(RECORD, record)


if __name__ == "__main__":
    main()
