"""UltraFeedback: four responses to an instruction, each rated by GPT-4 in four aspects; and its binarised form."""

from collections.abc import Iterator, Mapping, Sequence

from spct_jax.data.comparison import Comparison, Turn, unique_argmax
from spct_jax.data.layouts.base import Layout, LeftOut, Row, number, pair, split_answers, text
from spct_jax.errors import InputError


def _comparisons(row: Row, id: str) -> Iterator[Comparison | LeftOut]:
    if "completions" in row:
        yield _rated(row, id)
        return
    turns, chosen, rejected = split_answers(row.get("chosen"), row.get("rejected"))
    if "score_chosen" in row and number(row, "score_chosen") <= number(row, "score_rejected"):
        yield LeftOut("no unique best response")
    else:
        yield pair(turns, chosen, rejected, id)


def _rated(row: Row, id: str) -> Comparison | LeftOut:
    completions = row["completions"]
    if isinstance(completions, str) or not isinstance(completions, Sequence):
        raise InputError(f"completions is not a list ({type(completions).__name__})")
    if not all(isinstance(completion, Mapping) for completion in completions):
        raise InputError("a completion is not an object")
    if not completions:
        return LeftOut("no responses")
    scores = []
    for completion in completions:
        # The overall score is 10 where GPT-4 wrote 1 (out of 10), so the mean of the four ratings is preferred.
        score = completion.get("fine-grained_score")
        scores.append(number(completion, "overall_score") if score is None else number(completion, "fine-grained_score"))
    if unique_argmax(scores) is None:
        return LeftOut("no unique best response")
    return Comparison(
        conversation=[Turn("user", text(row, "instruction"))],
        responses=[text(completion, "response") for completion in completions],
        scores=scores,
        id=id,
    )


LAYOUT = Layout(
    name="ultrafeedback",
    row='{"instruction", "completions": [{"response", "fine-grained_score", "overall_score"}]}, one comparison of all of them; '
    'or binarised, {"chosen", "rejected": messages, "score_chosen"?, "score_rejected"?}',
    ties="left out where several responses share the best score",
    licence="MIT; responses and ratings were written by models (GPT-4 among them), whose terms may restrict training",
    comparisons=_comparisons,
)
