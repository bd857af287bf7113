"""The errors a user can cause, each with the exit code the command line gives it.

A message names the thing that is wrong and the way out. Anything that is not one of
these classes is our bug and keeps its traceback.
"""


class VitlabError(ValueError):
    """A refusal in one clear message; the base of all the others."""

    exit_code = 1


class ConfigError(VitlabError):
    """One or more problems of a configuration, all found in one go."""

    exit_code = 2

    def __init__(self, problems: list[str]):
        self.problems = problems
        lead = f"{len(problems)} problems:\n" if len(problems) > 1 else ""
        super().__init__(lead + "\n".join(problems))


class DataError(VitlabError):
    """A data set that is missing, damaged or not what its labels claim."""


class RunError(VitlabError):
    """A run directory that is missing, damaged, held by another process or of another schema."""


class DivergenceError(VitlabError):
    """Training met a loss or gradient that is not finite; nothing later was stored."""

    exit_code = 3


class PartialError(VitlabError):
    """Some runs of a study or a queue, or some pictures, have no result; the others have theirs."""

    exit_code = 4


class Interrupted(VitlabError):
    """A signal asked a training to stop; its checkpoint is written."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number
