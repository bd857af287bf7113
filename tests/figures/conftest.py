"""What tests of figures share: the figures that are drawn, and the numbers beside them."""

import csv

import pytest
from matplotlib.figure import Figure

from vitlab.figures import style


@pytest.fixture
def seen(monkeypatch) -> list[Figure]:
    """The figures that a test draws, once as PNG and once as SVG; they are not rendered."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    return figures


@pytest.fixture
def small(monkeypatch) -> None:
    """Rendered figures have few pixels."""
    monkeypatch.setitem(style.STYLE, "savefig.dpi", 50)


@pytest.fixture
def rows():
    """Reads the numbers beside a figure, its columns first."""

    def read(path) -> list[list[str]]:
        with open(path.with_name(f"{path.name}.csv"), newline="", encoding="utf-8") as file:
            return list(csv.reader(file))

    return read


@pytest.fixture
def texts():
    """Says what is written by artists, or in the legend of a figure."""

    def read(of) -> list[str]:
        artists = of.legends[0].get_texts() if isinstance(of, Figure) else of
        return [artist.get_text() for artist in artists]

    return read
