"""Whole numbers, years and Roman numerals in English words."""

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

#: A run of more digits is read one by one: `inflect` knows no scale beyond decillions.
MAX_CARDINAL_DIGITS = 36
ENDLESS = rf"\d{{{MAX_CARDINAL_DIGITS + 1},}}"

_UNCHANGED = ("hertz", "percent", "sen", "yen")
_ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10}


@cache
def _engine() -> "inflect.engine":
    # Imported when a number is met: it takes 1.5 s, longer than a short sentence takes to be spoken.
    import inflect

    return inflect.engine()


def digits(run: str) -> str:
    """A run of decimal digits, one by one: "007" -> "zero zero seven"."""
    return _engine().number_to_words(run, group=1, comma="", zero="zero")


@lru_cache(maxsize=4096)
def cardinal(run: str, comma: str = "") -> str:
    """A run of decimal digits as a number: "1234" -> "one thousand two hundred thirty-four".

    Args:
        run: ASCII digits; leading zeros count for nothing. Past `MAX_CARDINAL_DIGITS`: see `digits`.
        comma: stands after each thousands group that a group of at least a hundred follows.
    """
    if len(run) > MAX_CARDINAL_DIGITS:
        return digits(run)
    return _engine().number_to_words(run, andword="", comma=comma)


def ordinal(run: str) -> str:
    """A run of decimal digits as an ordinal: "21" -> "twenty-first"."""
    return _engine().ordinal(cardinal(run))


def year(run: str) -> str:
    """A year of four digits: "1905" -> "nineteen oh five", "1500" -> "fifteen hundred"."""
    if run.startswith("200"):
        return cardinal(run)
    return _engine().number_to_words(run, group=2, comma="", zero="oh").replace(" oh oh", " hundred")


def plural(name: str) -> str:
    """More than one: "ninety" -> "nineties", "square foot" -> "square feet", "hertz" -> "hertz"."""
    if name.endswith(_UNCHANGED):
        return name
    return "pence" if name == "penny" else _engine().plural(name)


def roman(numeral: str) -> int | None:
    """The value of a well-formed Roman numeral up to XXXIX, else None."""
    if not re.fullmatch(r"(?=.)X{0,3}(?:IX|IV|V?I{0,3})", numeral):
        return None
    values = [_ROMAN_DIGITS[letter] for letter in numeral]
    following = values[1:] + [0]
    return sum(-v if v < after else v for v, after in zip(values, following, strict=True))
