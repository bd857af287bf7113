"""Which maps were true of the models that ship: records of `vitlab explain` -> docs/explain.md.

A record is the faithfulness.json of a run, under the run's name.
"""

from pathlib import Path

from vitlab.files import read_json
from vitlab.formatting import table
from vitlab.reproduce.records import RECORDS

FOLDER = RECORDS / "explain"
PAGE = Path("docs/explain.md")


def gains(folder: Path = FOLDER) -> str:
    """A table of each map's gain with its interval, a column per model, the first model's best
    first."""
    records = {
        path.stem: read_json(path)
        for path in sorted(folder.glob("*.json"), key=lambda path: path.stem)
    }
    cells: dict[str, dict[str, str]] = {}
    for name, record in records.items():
        for one in record["methods"]:
            low, high = one["gain"]["interval"]
            text = f"{one['gain']['mean']:+.3f} ({low:+.3f} to {high:+.3f})"
            if one.get("verdict", "").startswith("beats both"):
                text = f"**{text}**"
            cells.setdefault(one["method"], {})[name] = text
    rows = [[method, *(each.get(name, "") for name in records)] for method, each in cells.items()]
    images = {record["images"] for record in records.values()}
    words = f"Gain on {' or '.join(map(str, images))} validation images"
    return table([words, *(f"`{name}`" for name in records)], rows)
