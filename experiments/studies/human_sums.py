"""Sums that are written out in a text, such as 3*12=36: what they come to, and whether that is what the text says."""

import math
import re

DIGITS = r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(DIGITS)
_EQUATION = re.compile(rf"(?<![\w.$+\-])(-?[$(]*[\d.][\d.,()+\-*/x×÷$ ]*?)\s*=\s*(-?\$?{DIGITS})(?![\d/*+x%])")
RESULT = re.compile(rf"=\s*(-?\$?-?{DIGITS})")


def number(text: str) -> float:
    """The value of a number as people write it, with thousands separated and a currency's sign."""
    return float(text.replace(",", "").replace("$", ""))


def equations(text: str) -> list[tuple[str, bool]]:
    """The sums in a text, as written there, and whether each is right, to one in a hundred."""
    found = []
    for match in _EQUATION.finditer(text):
        value = _value(match[1])
        # A part of a longer sum says nothing about it.
        alone = not re.search(r"[-+*/x×÷(%=]\s*$", text[: match.start()])
        if value is not None and alone and re.search(r"\d.*[-+*/x×÷]", match[1]):
            found.append((match[0], math.isclose(value, number(match[2]), rel_tol=0.01, abs_tol=0.011)))
    return found


def _value(sum_: str) -> float | None:
    """What a sum of numbers comes to, by the usual precedence; None where it is none."""
    sum_ = ("0" if sum_.startswith("-") else "") + sum_.replace("$", "")
    tokens = re.findall(rf"{DIGITS}|\S", re.sub("[x×]", "*", sum_).replace("÷", "/"))
    try:
        value, rest = _added(tokens)
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return None if rest else value


def _added(tokens: list[str]) -> tuple[float, list[str]]:
    value, rest = _multiplied(tokens)
    while rest and rest[0] in "+-":
        other, after = _multiplied(rest[1:])
        value, rest = (value + other if rest[0] == "+" else value - other), after
    return value, rest


def _multiplied(tokens: list[str]) -> tuple[float, list[str]]:
    value, rest = _single(tokens)
    while rest and rest[0] in "*/":
        other, after = _single(rest[1:])
        value, rest = (value * other if rest[0] == "*" else value / other), after
    return value, rest


def _single(tokens: list[str]) -> tuple[float, list[str]]:
    if tokens[0] != "(":
        return number(tokens[0]), tokens[1:]
    value, rest = _added(tokens[1:])
    if rest[0] != ")":
        raise ValueError("a bracket stays open")
    return value, rest[1:]
