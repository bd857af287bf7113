"""A program that writes a run's ONNX export.

    python -m vitlab.serve.exporting RUN

It is a process of its own because an export takes up to a minute, in which no thread could be
stopped, and needs memory that answers do not.
"""

import sys
from typing import Any

from vitlab.serve.child import Message, attend


def main(run_path: str) -> None:
    """Answer with the folder of the export, written if it is not there."""
    from vitlab.export import exported
    from vitlab.run import Run

    def answer(head: dict[str, Any], body: bytes) -> Message:
        return {"folder": str(exported(Run(run_path)))}, b""

    attend(answer, {"exports": True})


if __name__ == "__main__":
    main(sys.argv[1])
