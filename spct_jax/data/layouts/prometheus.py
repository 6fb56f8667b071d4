"""Data of Prometheus: pairs and rated responses, either in fields of their own or wrapped in its judge's prompt."""

import re
from collections.abc import Iterator, Mapping

from spct_jax.data.comparison import Comparison
from spct_jax.data.layouts.base import Layout, LeftOut, Row, labelled, number, pair, rated, text
from spct_jax.errors import InputError

_WRAPPED = re.compile(
    r"###The instruction to evaluate:\n(.*?)\n+###Response to evaluate:\n(.*?)\n+###(?:Reference|Score)", re.DOTALL
)


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    if "chosen_instruction" in row:
        (query, chosen), (other, rejected) = (unwrap(row, field) for field in ("chosen_instruction", "rejected_instruction"))
        if query != other:
            raise InputError("chosen and rejected do not answer the same instruction")
        yield pair(query, chosen, rejected, id)
    elif "orig_preference" in row:
        preference = text(row, "orig_preference")
        if preference not in ("A", "B"):
            raise InputError(f"orig_preference is neither A nor B ({preference!r})")
        responses = (text(row, "orig_response_A"), text(row, "orig_response_B"))
        yield labelled(text(row, "orig_instruction"), responses, int(preference == "B"), id)
    elif "orig_score" in row:
        score = row["orig_score"]
        if str(score) not in ("1", "2", "3", "4", "5"):
            raise InputError(f"orig_score is not 1 to 5 ({score!r})")
        yield rated(text(row, "orig_instruction"), text(row, "orig_response"), int(score), 2, 4, id)
    else:
        system = row.get("system_prompt")
        query = (f"{system}\n\n" if isinstance(system, str) and system.strip() else "") + text(row, "input")
        yield rated(query, text(row, "response"), number(row, "score"), 2, 4, id)


def unwrap(row: Mapping, field: str) -> tuple[str, str]:
    """(instruction, response) of a prompt of Prometheus' judge; InputError where the field holds none."""
    found = _WRAPPED.search(text(row, field))
    if not found:
        raise InputError(f"{field} is not a prompt of Prometheus' judge")
    return found[1].strip(), found[2].strip()


LAYOUT = Layout(
    name="prometheus",
    row='{"chosen_instruction", "rejected_instruction"} (HHH alignment, wrapped); {"orig_instruction", "orig_response_A", '
    '"orig_response_B", "orig_preference"} (Preference Collection); {"orig_instruction", "orig_response", "orig_score"} '
    '(Feedback Collection); {"input", "response", "score"} (BiGGen). Ratings of a single response: right from 4, wrong to 2',
    ties="rating 3 is left out",
    licence="Apache-2.0 (repository), CC-BY-4.0 (collections, written by GPT-4); HHH alignment and BiGGen are for evaluation",
    comparisons=_comparisons,
)
