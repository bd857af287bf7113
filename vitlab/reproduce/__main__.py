"""The maintainers' side of results, run in the repository.

python -m vitlab.reproduce keep RUN      copy a finished, tested run's record to docs/results
python -m vitlab.reproduce page          write the pages made of records, and the README's table
python -m vitlab.reproduce ship RUN      ship a run: weights halved, judged, in the package
"""

import json
import sys

from vitlab.bench import page as speed
from vitlab.errors import VitlabError
from vitlab.files import write_text
from vitlab.reproduce import maps, reliability
from vitlab.reproduce.records import PAGE, README, keep, page, ship, with_summary
from vitlab.run import Run


def main(words: list[str]) -> int:
    """Run one of the three commands above."""
    try:
        match words:
            case ["keep", path]:
                print(keep(Run(path)).path)
            case ["ship", path]:
                print(ship(Run(path)).path)
            case ["page"]:
                write_text(PAGE, page())
                write_text(README, with_summary(README.read_text()))
                write_text(reliability.PAGE, reliability.page())
                write_text(maps.PAGE, maps.with_gains(maps.PAGE.read_text()))
                if (measured := speed.FOLDER / "bench.json").exists():
                    write_text(speed.PAGE, speed.page(json.loads(measured.read_text())))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except VitlabError as error:
        print(f"vitlab: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
