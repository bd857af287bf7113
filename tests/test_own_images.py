"""The page on own images, followed by the letter: its commands, its code, its table."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pages.docs import blocks
from vitlab.cli import main
from vitlab.data.table import Table
from vitlab.recipes import recipe
from vitlab.run import Run

PAGE = (Path(__file__).parents[1] / "docs" / "own-images.md").read_text()

QUICK = {
    "fit": ["--minutes=0.02", "--device=cpu", "--quiet"],
    "train cpu": ["--train.epochs=2", "--train.small_epochs=1", "--device=cpu", "--quiet"],
    "train linear": ["--device=cpu", "--quiet"],
}
"""What the test adds to commands of the page, to be done with them in seconds."""


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder as the page asks for it: classes of unequal size, pictures of several shapes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VITLAB_DATA", raising=False)
    draws = np.random.default_rng(0)
    for colour, (name, count) in enumerate({"cat": 24, "dog": 24, "emu": 16}.items()):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(count):
            image = draws.integers(0, 200, (36, 36 + number % 3, 3), np.uint8)
            image[..., colour] //= 4
            Image.fromarray(image).save(folder / f"{number}.{('png', 'jpg', 'webp')[number % 3]}")
    pictures = sorted(tmp_path.glob("photos/*/*"))
    rows = [f"{p.parent.name}/{p.name},{p.parent.name}|{p.suffix[1:]}" for p in pictures]
    (tmp_path / "photos" / "labels.csv").write_text("\n".join(["path,label", *rows]))
    return tmp_path / "photos"


def test_the_page_is_followed_from_pictures_to_a_judged_model(photos, capsys):
    (example,) = blocks(PAGE, "csv")
    columns = example.splitlines()[0].split(",")
    rows = [
        {"path": f"{path.parent.name}/{path.name}", "label": path.parent.name, "split": split}
        for place, path in enumerate(sorted(photos.glob("*/*")))
        for split in [("test", "train", "train", "train")[place % 4]]
    ]
    lines = [",".join(columns), *(",".join(row[name] for name in columns) for row in rows)]
    (photos / "photos.csv").write_text("\n".join(lines))
    for block in blocks(PAGE, "sh"):
        for line in block.splitlines():
            words = shlex.split(line)[1:]
            quick = QUICK.get(words[0], QUICK.get(" ".join(words[:2]), []))
            assert main([*words, *quick]) == 0, line
    run, table, vit = (Run(f"runs/photos{name}") for name in ("", "-table", "-vit"))
    assert set(run.results) == {"validation", "test"}
    assert run.results["test"]["images"] == 5 + 5 + 3  # a fifth of each class
    chosen = next(row for row in run.selection["candidates"] if row["verdict"] == "chosen")
    assert 30 <= run.results["validation"]["images"] == chosen["pictures"] <= 19 + 19 + 13
    assert run.selection["chosen"] == "linear classifier on efficientnet-lite0"
    assert any(run.figures.glob("*.png"))
    assert table.config.data.classes == 3 and table.finished["validation"]["images"]
    assert Run("runs/labels").final_numbers["validation"]["mean_average_precision"] > 0
    assert vit.config.train.batch_size < 64  # of 46 images, where the recipe has 256
    words = shlex.split(vit.provenance["command"])[3:]
    again = recipe("cpu").override({n[2:]: v for n, v in zip(words[::2], words[1::2], strict=True)})
    assert (again.train, again.optim) == (vit.config.train, vit.config.optim)
    assert "near copy" not in capsys.readouterr().err

    (code,) = blocks(PAGE, "python")
    names: dict[str, object] = {}
    exec(code, names)
    assert set(names["names"]) <= {"cat", "dog", "emu"}


def test_the_table_of_the_page_is_one_that_can_be_read(tmp_path):
    (example,) = blocks(PAGE, "csv")
    (tmp_path / "photos.csv").write_text(example.replace("17.png,dog", "17.png,cat"))
    for line in example.splitlines()[1:]:
        path = tmp_path / line.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        path.touch()
    table = Table(tmp_path / "photos.csv")
    assert table.has_test and table.class_names == ("cat",)
