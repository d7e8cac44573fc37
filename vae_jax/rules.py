"""What a config key is: its default, the rule for its values, and what it means.

`config.KEYS` lists the keys; a `Rule` completes the sentence "config.x is 3, but must be ...".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ml_collections.config_dict import FieldReference

MAX_INT = 2**31 - 1
MAX_SIZE = 2**16  # of one axis of a model; a larger one is a slip, and would fill any memory


@dataclass(frozen=True)
class Rule:
    """Which values of the right type a key takes.

    Attributes
    ----------
    accepts
        Says whether a value is allowed.
    requirement
        What a value must be, as words that follow "must be".
    """

    accepts: Callable[[Any], bool]
    requirement: str


@dataclass(frozen=True)
class Key:
    """One key of the config.

    Attributes
    ----------
    default
        The value where nothing else is said; None leaves it unset.
    rule
        Which values it takes, once it is set.
    meaning
        What it is, with its unit.
    kind
        The type of its values, where the default does not tell; `object` for several types, which
        the rule then tells apart.
    """

    default: Any
    rule: Rule
    meaning: str
    kind: type | None = None

    @property
    def value_type(self) -> type:
        """The type of its values."""
        return self.kind or type(self.default)

    def field(self) -> Any:
        """Return what a new `ConfigDict` holds: the default, with the type if that is another."""
        return self.default if self.kind is None else FieldReference(self.default, self.kind)

    def has_type(self, value: Any) -> bool:
        """Say whether a value is of the key's type; a whole number is a float, too."""
        if self.value_type is object:
            return True
        if value is None:
            return self.default is None
        if self.value_type is float:
            return type(value) in (int, float)
        if self.value_type is tuple:
            kind = type(self.default[0])
            return isinstance(value, tuple) and all(type(item) is kind for item in value)
        return type(value) is self.value_type and "\0" not in str(value)


def one_of(names: tuple[str, ...]) -> Rule:
    """Accept these names."""
    return Rule(lambda value: value in names, f"one of {', '.join(names)}")


def all_of(names: tuple[str, ...]) -> Rule:
    """Accept any choice of these names."""
    return Rule(lambda values: set(values) <= set(names), f"a subset of {', '.join(names)}")


def at_least(low: int, at_most: int = MAX_INT) -> Rule:
    """Accept numbers from a lower limit on."""
    return Rule(lambda value: low <= value <= at_most, f"{low} or more, at most {at_most}")


def between(low: float, high: float) -> Rule:
    """Accept numbers from `low` to `high`, both included."""
    return Rule(lambda value: low <= value <= high, f"from {low} to {high}")


def above_zero(at_most: float) -> Rule:
    """Accept numbers above 0."""
    return Rule(lambda value: 0 < value <= at_most, f"a number above 0, at most {at_most:g}")


def sizes(at_least: int) -> Rule:
    """Accept lists of sizes, at least so many of them."""
    return Rule(
        lambda values: at_least <= len(values) <= 64 and all(0 < v <= MAX_SIZE for v in values),
        f"{at_least} to 64 positive whole numbers up to {MAX_SIZE}",
    )


COUNT = at_least(1)
NOT_NEGATIVE = at_least(0)
SIZE = at_least(1, MAX_SIZE)
POSITIVE = above_zero(1e9)
FLAG = Rule(lambda value: value in (True, False), "True or False")
COLUMN = Rule(lambda value: len(value) <= 1000, "the name of a column of the manifest, or empty")
COLUMNS = Rule(
    lambda values: len(values) <= 64 and all(map(COLUMN.accepts, values)),
    "up to 64 names of columns of the manifest",
)
