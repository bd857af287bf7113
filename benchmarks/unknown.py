"""Images unlike the training images, and prediction sets, of the models that ship.

pip install -r benchmarks/requirements.txt
VITLAB_RUNS=FOLDER python benchmarks/unknown.py

Four scores tell the validation images of CIFAR-10 from other images: the maximum softmax
probability (Hendrycks & Gimpel, 2017), energy (Liu et al., 2020), the distance to the 50th nearest
of 10,000 training images (Sun et al., 2022) and the Mahalanobis distance as `metrics.ood` has it;
beside them, for the log, the relative one (Ren et al., 2021) and virtual-logit matching (Wang et
al., 2022).
Which is best is decided on DEVELOPMENT, and what that is worth is measured on the other sets. The
shipped models are evaluated in FOLDER first, on the test images too; 20 times, half of these
calibrate prediction sets for the other half.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

import vitlab
from vitlab.config import DataConfig
from vitlab.data import load_test, open_dataset
from vitlab.errors import VitlabError
from vitlab.evaluate import evaluate
from vitlab.files import write_json
from vitlab.inference import TrainedModel, open_examples
from vitlab.metrics import conformal, ood
from vitlab.preprocessing import to_tensor
from vitlab.pretrained import names, open_run
from vitlab.training.provenance import device_name

RECORD = Path("docs/results/unknown.json")
COUNT, SIDE, SEED = 2_000, 32, 0
DEVELOPMENT = ("blobs", "stripes")
SPLITS = 20
BANK, NEIGHBOR = 10_000, 50


def blobs(rng: np.random.Generator) -> np.ndarray:
    """Smooth spots of random colours."""
    coarse = np.clip(rng.normal(128, 70, (COUNT, 4, 4, 3)), 0, 255).astype(np.uint8)
    return np.stack([enlarged(Image.fromarray(one)) for one in coarse])


def stripes(rng: np.random.Generator) -> np.ndarray:
    """Waves of two colours, in any direction."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angle, period = rng.uniform(0, np.pi, COUNT), rng.uniform(3, 16, COUNT)
    along = rows * np.sin(angle)[:, None, None] + columns * np.cos(angle)[:, None, None]
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * along / period[:, None, None])[..., None]
    one, other = rng.uniform(0, 255, (2, COUNT, 1, 1, 3))
    return (one + (other - one) * wave).astype(np.uint8)


def digits(rng: np.random.Generator) -> np.ndarray:
    """Printed digits in colour with others beside them, as on house numbers."""
    import matplotlib

    fonts = sorted((Path(matplotlib.__file__).parent / "mpl-data/fonts/ttf").glob("DejaVuS*.ttf"))
    return np.stack([digit(rng, fonts) for _ in range(COUNT)])


def digit(rng: np.random.Generator, fonts: list[Path]) -> np.ndarray:
    """One of them, (SIDE, SIDE, 3)."""
    paper, ink = rng.integers(0, 256, (2, 3))
    while abs(int(paper.sum()) - int(ink.sum())) < 150:
        ink = rng.integers(0, 256, 3)
    image = Image.new("RGB", (64, 64), tuple(paper.tolist()))
    pen = ImageDraw.Draw(image)
    font = ImageFont.truetype(fonts[rng.integers(len(fonts))], int(rng.integers(40, 60)))
    middle, top = 12 + int(rng.integers(-6, 6)), int(rng.integers(-4, 8))
    for x in (middle, middle - 38, middle + 36):
        if x == middle or rng.random() < 0.6:
            pen.text((x, top), str(rng.integers(10)), fill=tuple(ink.tolist()), font=font)
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small.filter(ImageFilter.GaussianBlur(rng.random())), float)
    light = np.linspace(-20, 20, SIDE)[:, None, None] * rng.normal()
    noisy = pixels + light + rng.normal(0, 4, pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def textures(rng: np.random.Generator) -> np.ndarray:
    """Brick, grass and gravel of scikit-image, in tints of their own."""
    from skimage import data  # pyright: ignore[reportMissingImports]

    sources, found = (data.brick(), data.grass(), data.gravel()), []
    for place in range(COUNT):
        source, side = sources[place % 3], int(rng.integers(SIDE, 200))
        y, x = rng.integers(0, 512 - side, 2)
        part = Image.fromarray(source[y : y + side, x : x + side])
        grey = np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BOX), float)[..., None]
        found.append((grey * rng.uniform(0.5, 1, 3)).astype(np.uint8))
    return np.stack(found)


def gaussian(rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise around grey."""
    return np.clip(rng.normal(128, 64, (COUNT, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def uniform(rng: np.random.Generator) -> np.ndarray:
    """Uniform noise."""
    return rng.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)


def cifar100(rng: np.random.Generator) -> np.ndarray:
    """Test images of CIFAR-100, where that is at hand."""
    dataset = open_dataset(DataConfig(dataset="cifar100"))
    images = load_test(dataset).images
    return images[np.sort(rng.permutation(len(images))[:COUNT])]


SETS = (blobs, stripes, digits, textures, gaussian, uniform, cifar100)


def enlarged(image: Image.Image) -> np.ndarray:
    """An image at SIDE, smoothly."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


class Scores:
    """The scores of a model, of which more is more like the training images."""

    def __init__(self, model: TrainedModel):
        assert model.detector is not None
        self.model, self.detector = model, model.detector
        examples = open_examples(model.run)
        train, self.validation = model.run.split.index
        bank = np.sort(np.random.default_rng(SEED).permutation(train)[:BANK])
        logits, features = self.outputs(examples.images[bank])
        self.bank = features / np.linalg.norm(features, axis=1, keepdims=True)
        one_class = np.zeros(len(bank), int)
        self.background, _ = ood.fit_detector(features, one_class, features)
        self.center = features.mean(axis=0)
        # The directions in which features vary least, one half of them.
        _, directions = np.linalg.eigh(np.cov(features.T))
        self.residual = directions[:, : features.shape[1] // 2]
        residual = np.linalg.norm((features - self.center) @ self.residual, axis=1)
        self.alpha = logits.max(axis=1).mean() / residual.mean()
        self.known = self(examples.images[self.validation])

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and features of images (N, H, W, C)."""
        starts = range(0, len(images), 500)
        parts = [self.model.outputs(to_tensor(images[start : start + 500])) for start in starts]
        logits, features = zip(*parts, strict=True)
        return torch.cat(logits).numpy(), torch.cat(features).numpy()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """By name, (N,) each."""
        logits, features = self.outputs(images)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        near: np.ndarray = np.partition(unit @ self.bank.T, -NEIGHBOR, axis=1)[:, -NEIGHBOR]
        energy = np.asarray(logsumexp(logits, axis=1))
        distances = self.detector.distances(features)
        residual = np.linalg.norm((features - self.center) @ self.residual, axis=1)
        return {
            "softmax": np.max(softmax(logits, axis=1), axis=1),
            "energy": energy,
            "neighbors": near,
            "mahalanobis": -distances,
            "relative_mahalanobis": self.background.distances(features) - distances,
            "virtual_logit": energy - self.alpha * residual,
        }

    def measure(self, images: np.ndarray) -> dict[str, dict[str, float]]:
        """AUROC and false positive rate at 95 % true positive rate, of known images, by score."""
        found = {}
        for name, other in self(images).items():
            known = self.known[name]
            truth = np.repeat([1, 0], [len(known), len(other)])
            limit = np.quantile(known, 1 - ood.ACCEPTED)
            found[name] = {
                "auroc": float(roc_auc_score(truth, np.concatenate((known, other)))),
                "fpr95": float((other >= limit).mean()),
            }
        return found

    def photographs(self) -> dict[str, float]:
        """Share of validation images that are nearer to the training images than a photograph."""
        from sklearn.datasets import images

        files = {path.name: path for path in Path(*images.__path__).glob("*.jpg")}
        distances = [one.distance for one in self.model.predict(list(map(str, files.values())))]
        nearer = [(-self.known["mahalanobis"] < distance).mean() for distance in distances]
        return dict(zip(files, map(float, nearer), strict=True))


def coverage(run: vitlab.Run) -> list[dict[str, float]]:
    """Coverage of prediction sets over random halves of the test images, by level."""
    with np.load(run.predictions("test")) as stored:
        logits, labels = stored["logits"].astype(np.float64), stored["labels"]
    probabilities = softmax(logits / run.result("validation")["temperature"], axis=1)
    rng, rows = np.random.default_rng(SEED), []
    for _ in range(SPLITS):
        order = rng.permutation(len(labels))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        thresholds = conformal.calibrate(probabilities[one], labels[one])
        rows.append(conformal.measure(probabilities[other], labels[other], thresholds))
    return [
        {
            "level": level / 100,
            "coverage": float(np.mean([row[k]["coverage"] for row in rows])),
            "lowest": min(row[k]["coverage"] for row in rows),
            "highest": max(row[k]["coverage"] for row in rows),
            "mean_size": float(np.mean([row[k]["mean_size"] for row in rows])),
            "empty": float(np.mean([row[k]["empty"] for row in rows])),
        }
        for k, level in enumerate(conformal.REPORTED)
    ]


def main() -> None:
    """Measure every shipped model on every set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=RECORD)
    out = parser.parse_args().out
    sets, missing = {}, []
    for make in SETS:
        try:
            sets[make.__name__] = make(np.random.default_rng(SEED))
        except VitlabError:
            missing.append(make.__name__)
    models = []
    for name in names():
        run = open_run(name)
        for split in ("validation", "test"):
            evaluate(run, split, quiet=True)
        scores = Scores(vitlab.load(run, device="cpu"))
        one = {
            "model": name,
            "checkpoint_sha256": run.checkpoint().sha256,
            "sets": {key: scores.measure(images) for key, images in sets.items()},
            "photographs": scores.photographs(),
            "unknown_test": vitlab.Run(run.path).result("test").get("ood", {}).get("unknown"),
            "coverage": coverage(run),
        }
        models.append(one)
        print(name, *(f"{key} {row}" for key, row in one["sets"].items()), sep="\n  ")
    scores = models[0]["sets"]["blobs"]
    chosen: dict[str, Any] = {
        score: float(np.mean([m["sets"][s][score]["auroc"] for m in models for s in DEVELOPMENT]))
        for score in scores
    }
    write_json(
        out,
        {
            "command": "python benchmarks/unknown.py",
            "machine": {
                "device": device_name(torch.device("cpu")),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            },
            "seed": SEED,
            "images": COUNT,
            "development": list(DEVELOPMENT),
            "development_auroc": chosen,
            "missing": missing,
            "splits": SPLITS,
            "models": models,
        },
    )
    print(chosen)


if __name__ == "__main__":
    main()
