"""Verdicts as JSON and summed up."""

from spct_jax.data.comparison import Comparison
from spct_jax.evaluation import recorded
from spct_jax.judging import verdicts
from spct_jax.judging.verdicts import Sample, Verdict


def test_a_meta_reward_that_is_not_finite_becomes_null():
    verdict = Verdict("x", (1,), 0, (), 1, 1, 0, (Sample((0,), (1,), float("nan"), ""),))
    assert verdicts.to_json(verdict)["samples"][0]["meta"] is None


def test_expected_scores_are_in_all_samples_or_in_none():
    """Null where none of a verdict's critiques could be read, too: whoever counts expected scores finds them."""
    read, unread = Sample((0,), (7,), None, "", expected=(6.5,)), Sample((0,), None, None, "")
    cases = ((read, unread), True), ((unread, unread), True), ((unread, unread), False)
    of = [verdicts.to_json(Verdict("x", None, None, (), 2, 1, 0, samples, expected)) for samples, expected in cases]
    found = [[sample.get("expected", "absent") for sample in one["samples"]] for one in of]
    assert found == [[(6.5,), None], [None, None], ["absent"] * 2]
    assert [vote.scores for vote in recorded.from_verdict(of[1], read="expected").votes] == [None, None]


def test_summary_by_hand():
    summary = verdicts.Summary()

    def add(scores, given, valid, drawn):
        record = {"scores": scores, "valid": valid, "truncated": drawn - valid, "samples": [{}] * drawn}
        turns, responses = [{"role": "user", "content": "q"}], ["r"] * len(given or scores)
        summary.add_verdict(record, Comparison(conversation=turns, responses=responses, scores=given))

    add([9, 5, 1], [1, 0, 0], 4, 4)  # right
    add([5, 5, 1], [1, 0, 0], 3, 4)  # two share the top: 1/2
    add(None, [1, 0], 0, 2)  # no verdict: 1/2
    add([2, 7], [1, 0], 2, 2)  # wrong
    add([2, 2], None, 4, 4)  # a tie nobody can judge
    add([3, 4], [1, 1], 4, 4)  # people found no one best
    add([6], [1], 4, 4)  # one response: nothing to agree on
    for reason in ("not JSON (x)", "not JSON (y)", "no responses"):
        summary.add_error(reason)
    summary.add_blank()
    assert str(summary).splitlines() == [
        "11 lines: 7 scored, 3 errors, 1 blank",
        "  2 x not JSON",
        "  1 x no responses",
        "samples: 3.4 per comparison, 87.5 % of 24 valid",
        "truncated, and so not valid: 12.5 % of 24 samples",
        "without a verdict, since no sample was valid: 1 comparison",
        "ties: 40.0 % of 5",
        "agreement with the given scores: 50.0 % of 4 (a tie counts by its chance)",
    ]
