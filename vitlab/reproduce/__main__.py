"""The maintainers' side of results, run in the repository.

python -m vitlab.reproduce keep RUN      copy a finished, tested run's record to docs/results
python -m vitlab.reproduce measure FOLDER MODEL [MODEL ...]
                                         judge, explain and compare models that ship anew
python -m vitlab.reproduce page          write the pages made of records, and the README's table
python -m vitlab.reproduce ship RUN NAME ship a run under a name: weights halved, judged
"""

import sys
from pathlib import Path

from vitlab import measured
from vitlab.bench import page as speed
from vitlab.errors import VitlabError
from vitlab.files import read_json, write_json, write_text
from vitlab.reproduce import comparison, layers, maps, reliability, shipped, tiers
from vitlab.reproduce.marks import fill
from vitlab.reproduce.records import PAGE, README, keep, measurements, page, ship, summary
from vitlab.run import Run

FILLED = (
    (README, "results", summary),
    (maps.PAGE, "maps", maps.gains),
    (layers.PAGE, "probes", layers.probes),
    (comparison.PAGE, "numbers", comparison.numbers),
    (comparison.PAGE, "findings", comparison.findings),
)
"""Pages written by hand, the mark in them, and what makes the lines there."""


def main(words: list[str]) -> int:
    """Run one of the commands above."""
    try:
        match words:
            case ["keep", path]:
                print(keep(Run(path)).path)
            case ["ship", path, name]:
                print(ship(Run(path), name).path)
            case ["measure", folder, *names] if names:
                for path in shipped.measure(Path(folder), names):
                    print(path)
            case ["page"]:
                write_text(PAGE, page())
                write_text(tiers.PAGE, tiers.page())
                write_json(measured.FILE, measurements())
                write_text(reliability.PAGE, reliability.page())
                if (found := speed.FOLDER / "bench.json").exists():
                    write_text(speed.PAGE, speed.page(read_json(found)))
                for path, name, lines in FILLED:
                    write_text(path, fill(path.read_text(), name, lines()))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except VitlabError as error:
        print(f"vitlab: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
