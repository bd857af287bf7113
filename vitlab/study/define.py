"""What a study asks: a file or a command line becomes a plan, before anything runs.

    question = "Is RMSNorm as good as LayerNorm?"
    recipe = "vit-tiny"
    [common]                        # holds for every arm
    train.epochs = 50
    [vary]
    model.norm = ["layer", "rms"]   # an axis that is a field, and its values
    [vary.position.rope]            # a value that changes several fields together
    model.position = "rope"
    explanation = "..."

`vitlab study --recipe vit-tiny --vary model.norm=layer,rms` says the same in one line. A name
that does not exist and a value that no field can have are errors; a combination that no model
can be is an arm refused, with its reason.
"""

import itertools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

from vitlab.config import SECTIONS, field_types, fields_of
from vitlab.errors import ConfigError
from vitlab.fields import bare, describe, parse, unknown
from vitlab.recipes import ALL_RECIPES
from vitlab.study.plan import AGAINST_BASELINE, ALL_PAIRS, Arm, Design, Plan, arm_config, written

READY = Path(__file__).parent / "ready"
"""The studies that ship: a file each."""


class Value(NamedTuple):
    """A value of an axis: the fields it changes and, where the file has one, an explanation."""

    changes: dict[str, Any]
    explanation: str = ""


class Range(NamedTuple):
    """Numbers between two bounds, for a guided search: `1..8`, `0..0.3`, `log:1e-4..1e-2`."""

    low: float
    high: float
    log: bool

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read a range, or None if the text is no range."""
        found = re.fullmatch(r"(log:)?([-+.\de]+?)\.\.([-+.\de]+)", text)
        try:
            return cls(float(found[2]), float(found[3]), bool(found[1])) if found else None
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{'log:' if self.log else ''}{self.low:g}..{self.high:g}"


Axes = dict[str, dict[str, Value] | Range]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A study before its arms are worked out."""

    name: str
    question: str
    recipe: str
    axes: Axes
    design: Design = "one-factor"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    budget: int = 0
    """Arms that a guided search tries."""
    overrides: dict[str, Any] = field(default_factory=dict)
    explanations: dict[str, str] = field(default_factory=dict)
    family: str = AGAINST_BASELINE
    exploratory: bool = False
    rivals: bool = False
    """The best value of each axis meets those of the others, instead of being combined."""
    margin: float | None = None
    """Difference of accuracies, 0 to 1, within which an arm counts as equal to another."""
    rates: tuple[float, ...] = ()
    """Multiples of the learning rate that each arm is tried with, briefly."""

    def __post_init__(self):
        problems = []
        if self.recipe not in ALL_RECIPES:
            problems.append(f"recipe: {unknown(self.recipe, ALL_RECIPES)}")
        if self.design not in get_args(Design):
            problems.append(f"design: {unknown(self.design, get_args(Design))}")
        if self.family not in (AGAINST_BASELINE, ALL_PAIRS):
            problems.append(f"family: {unknown(self.family, (AGAINST_BASELINE, ALL_PAIRS))}")
        if not self.seeds:
            problems.append("seeds=0 is no study: three are the least for a verdict, five better")
        if self.margin is not None and not 0 < self.margin < 1:
            problems.append(f"margin={self.margin} is a difference of accuracies, such as 0.005")
        if self.design == "search":
            if not self.axes:
                problems.append("nothing varies: give --vary FIELD=VALUE,VALUE or a table [vary]")
            composite = [name for name in self.axes if name not in field_types()]
            problems += [f"{name}: a search varies fields, one at a time" for name in composite]
            if self.budget < 1:
                problems.append("a search needs --trials N, the number of arms it may try")
        else:
            ranges = [name for name, axis in self.axes.items() if isinstance(axis, Range)]
            problems += [f"{name}: a range needs --design search" for name in ranges]
        if problems:
            raise ConfigError(problems)

    def with_overrides(self, fields: dict[str, Any]) -> "Definition":
        """The study with fields, as typed at a command line, set for every arm."""
        problems: list[str] = []
        found = replace(self, overrides={**self.overrides, **typed(fields, problems)})
        if problems:
            raise ConfigError(problems)
        return found

    def arms(self) -> Iterator[Arm]:
        """Yield the arms of the design, the baseline first.

        Some may be no possible config, and some no other than the baseline.
        """
        yield Arm(name="baseline", changes={}, baseline=True)
        axes = {axis: values for axis, values in self.axes.items() if isinstance(values, dict)}
        if self.design == "one-factor":
            for axis, values in axes.items():
                for name in values:
                    yield self._arm({axis: name}, axis)
        elif self.design == "grid":
            for names in itertools.product(*axes.values()):
                yield self._arm(dict(zip(axes, names, strict=True)), None)

    def _arm(self, chosen: dict[str, str], axis: str | None) -> Arm:
        """The arm of one value of each of some axes."""
        changes: dict[str, Any] = {}
        sentences = []
        for one, name in chosen.items():
            value = self.axes[one][name]  # type: ignore[index]
            changes |= value.changes
            sentences.append(value.explanation or self.explanations.get(one, ""))
        return Arm(
            name=", ".join(f"{one}={name}" for one, name in chosen.items()),
            changes=changes,
            axis=axis,
            explanation=" ".join(filter(None, sentences)),
        )


def ready() -> dict[str, Path]:
    """The studies that ship, by name."""
    return {path.stem: path for path in sorted(READY.glob("*.toml"))}


def read(name: str, **given: Any) -> Definition:
    """Read a study that ships, or a file; what is `given` takes the place of what it says.

    ConfigError lists all that is wrong, with its line.
    """
    path = ready().get(name, Path(name))
    if not path.is_file():
        raise ConfigError([f"study: {unknown(name, ready())} (or the path of a .toml file)"])
    try:
        source = path.read_text(encoding="utf-8")
        tree = tomllib.loads(source)
    except (UnicodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from None
    try:
        return interpret(path.stem, tree | given)
    except ConfigError as error:
        raise ConfigError([f"{path}{line_of(p, source)}: {p}" for p in error.problems]) from None


def line_of(problem: str, source: str) -> str:
    """`:12` if one of the names in a problem is written in that line of a file."""
    lines = source.splitlines()
    for name in re.findall(r"[\w.-]+", problem):
        last = name.rpartition(".")[2]
        for number, line in enumerate(lines, 1):
            if re.match(rf"\s*\[?[\w.\"-]*\b{re.escape(last)}\"?\s*[]=]", line):
                return f":{number}"
    return ""


def from_options(vary: list[str], recipe: str | None, **given: Any) -> Definition:
    """Read a study off a command line: each of `vary` is `FIELD=VALUE,VALUE` or `FIELD=RANGE`.

    Without any, it is a study of nothing but seeds.
    """
    axes: dict[str, Any] = {}
    problems = [] if recipe else ["--vary needs a --recipe to vary"]
    for item in vary:
        path, _, values = item.partition("=")
        path = path.replace("-", "_")
        if not values:
            problems.append(f"--vary {item}: write FIELD=VALUE,VALUE")
        elif "tuple" in str(field_types().get(path)):
            problems.append(f"--vary {path}: its values hold commas, so they need a file")
        else:
            axes[path] = values if Range.read(values) else values.split(",")
    if problems or recipe is None:
        raise ConfigError(problems)
    name = "-".join([recipe, *(path.rpartition(".")[2] for path in axes or ["seeds"])])
    question = f"What does {' or '.join(axes)} change in {recipe}?"
    if not axes:
        question = f"How far apart do runs of {recipe} end that differ in their seed alone?"
    return interpret(name, {"question": question, "recipe": recipe, "vary": axes, **given})


KEYS: dict[str, type] = {
    "question": str, "recipe": str, "design": str, "seeds": int, "trials": int, "common": dict,
    "vary": dict, "explain": dict, "family": str, "exploratory": bool, "rivals": bool,
    "rates": list, "margin": float,
}  # fmt: skip
"""What a file may say, and in which type."""


def interpret(name: str, tree: dict[str, Any]) -> Definition:
    """Turn what a file says into a definition."""
    problems = [unknown(key, KEYS) for key in tree if key not in KEYS]
    problems += [f"{key} is missing" for key in ("question", "recipe") if key not in tree]
    problems += [
        f"{key}={tree[key]!r} is not {describe(kind)}"
        for key, kind in KEYS.items()
        if key in tree and type(tree[key]) is not kind
    ]
    if problems:
        raise ConfigError(problems)
    overrides = typed(flat(tree.get("common", {})), problems)
    vary = flat(tree.get("vary", {}))
    axes = {axis: read_axis(axis, values, problems) for axis, values in vary.items()}
    if problems:
        raise ConfigError(problems)
    search = tree.get("design") == "search"
    return Definition(
        name=name,
        question=tree["question"],
        recipe=tree["recipe"],
        axes=axes,
        design=tree.get("design", "one-factor"),
        seeds=tuple(range(tree.get("seeds", 1 if search else 5))),
        budget=tree.get("trials", 0),
        overrides=overrides,
        explanations=flat(tree.get("explain", {})),
        family=tree.get("family", AGAINST_BASELINE),
        exploratory=search or tree.get("exploratory", False),
        rivals=tree.get("rivals", False),
        margin=tree.get("margin"),
        rates=tuple(tree.get("rates", ())),
    )


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Turn the tables of sections, `model.norm = ...`, into dotted names."""
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        if key in SECTIONS and isinstance(value, dict):
            fields |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            fields[key] = value
    return fields


def read_axis(axis: str, values: Any, problems: list[str]) -> dict[str, Value] | Range:
    """Read an axis: a range, the values of a field, or values that each change several fields."""
    if isinstance(values, dict):
        return {name: read_value(name, changes, problems) for name, changes in values.items()}
    if isinstance(values, str) and (found := Range.read(values)):
        if bare(field_types().get(axis)) not in (int, float):
            problems.append(f"{axis}={values}: a range needs a field that is a number")
        elif found.low >= found.high or (found.log and found.low <= 0):
            problems.append(f"{axis}={values}: a range grows, and one with log: begins above 0")
        return found
    if not isinstance(values, list):
        problems.append(f"{axis}={values!r} is neither a list of values nor a range")
        return {}
    if axis not in field_types():
        problems.append(unknown(axis, field_types()))
        return {}
    changes = [typed({axis: value}, problems) for value in values]
    return {written(one[axis]): Value(one) for one in changes if one}


def read_value(name: str, tree: Any, problems: list[str]) -> Value:
    """Read a value that says itself what it changes."""
    if not isinstance(tree, dict):
        problems.append(
            f"{name}={tree!r}: a value of an axis that is no field is a table of fields"
        )
        return Value({})
    changes = flat(tree)
    explanation = changes.pop("explanation", "")
    return Value(typed(changes, problems), explanation)


def typed(fields: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """The fields as JSON values of their types; notes unknown names and values that do not fit."""
    found = {}
    for path, value in fields.items():
        if path == "recipe":
            if value not in ALL_RECIPES:
                problems.append(f"recipe: {unknown(value, ALL_RECIPES)}")
            found[path] = value
        elif path not in field_types():
            problems.append(unknown(path, field_types()))
        else:
            try:
                parsed = parse(value, field_types()[path])
            except (TypeError, ValueError) as error:
                problems.append(f"{path}={value!r} {error}")
            else:
                found[path] = list(parsed) if isinstance(parsed, tuple) else parsed
    return found


def follow_up(plan: Plan, best: dict[str, dict[str, Any]]) -> Definition:
    """The study that trains the best of another with new seeds, against its baseline.

    Args:
        plan: the study in which the best was found.
        best: axis -> changes of its best arm, for the axes whose best is not the baseline.

    Of axes that are rivals the best of each is an arm of its own, and that of the first axis
    takes the baseline's place.
    """
    first, overrides = max(plan.seeds) + 1, plan.overrides
    if plan.rivals:
        leader, *others = plan.axes
        ahead = best.get(leader, {})
        before = fields_of(arm_config(plan.recipe, overrides, {}))
        overrides = {**overrides, **ahead}
        rivals = {
            axis: Value({path: before[path] for path in ahead} | best.get(axis, {}))
            for axis in others
        }
        axes: Axes = {"rival": rivals}
    else:
        changes = {path: value for one in best.values() for path, value in one.items()}
        sentence = f"The best values of {plan.name} together: {', '.join(best)}."
        axes = {"combination": {"best": Value(changes, sentence)}}
    return Definition(
        name=f"{plan.name}-best",
        question=f"Does the best of {plan.name} beat its baseline with new seeds?",
        recipe=plan.recipe,
        overrides=overrides,
        axes=axes,
        seeds=tuple(range(first, first + max(5, len(plan.seeds)))),
    )
