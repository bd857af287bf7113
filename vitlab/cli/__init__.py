"""The command line: a table of verbs, each a function that calls the library and prints.

Every field of a config is an option, `--section.field value`. All that is wrong with a command
is collected and told at once, with exit code 2. Results go to standard output, everything else
to standard error. What a verb needs is imported inside it, so that `--help` answers at once.
"""

import errno
import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress

from vitlab.cli.arguments import Verb
from vitlab.cli.parser import VERBS, build_parser, parse
from vitlab.errors import VitlabError

__all__ = ["VERBS", "Verb", "build_parser", "main", "parse"]

DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM,
    errno.ENOTDIR, errno.EEXIST,
}  # fmt: skip
"""What a disk answers that fails, is full or is not ours to write, or where a folder of somebody's
choice is a file: no bug, and no traceback."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow, and nothing is run
        import argcomplete

        argcomplete.autocomplete(build_parser())
    for stream in (sys.stdout, sys.stderr):
        # A class may be called Käfer where the terminal, a log or cron has no ä: it is escaped.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warned: set[str] = set()

    def warn(message: Warning | str, *_: object, **__: object) -> None:
        """Print a warning once: a data set that is opened twice has the same to say."""
        if (text := str(message)) not in warned:
            warned.add(text)
            tell(text)

    with warnings.catch_warnings():
        warnings.showwarning = warn
        try:
            args = parse(sys.argv[1:] if words is None else words)
            if args.verb is None:
                build_parser().print_help()
                return 0
            code = VERBS[args.verb].act(args)
            sys.stdout.flush()
            return code
        except VitlabError as error:
            tell(str(error))
            return error.exit_code
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            # Whoever read the output has left; a last flush at exit must not complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except OSError as error:
            if error.errno not in DISK:
                raise
            where = f"{error.filename}: " if error.filename else ""
            tell(
                f"{where}{error.strerror}: make room, or choose a disk or folder that can "
                "be read and written; what was finished before is intact"
            )
            return VitlabError.exit_code


def tell(message: str) -> None:
    """Print a message to standard error, if there is still somebody to read it."""
    with suppress(OSError):  # a terminal that was closed must not change the exit code
        print(f"vitlab: {message}", file=sys.stderr, flush=True)
