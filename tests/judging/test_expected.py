"""Expected scores against slow references: full logits of every context, all completions of a box over a small vocabulary."""

import dataclasses
import functools
import math

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_judge import OPTIONS, changed, comparisons, judge, tokenizer

from spct_jax.data import batches
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm import parse, voting
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.judging import expected, readings, scheduler, tasks
from spct_jax.judging.verdicts import Sample


@functools.cache
def digits_apart():
    """A tokenizer whose pieces are single characters: like Gemma's, it has one for every digit and none for two."""
    text = "\\boxed{0123456789, Scores: Which one?}"
    return train_tokenizer([text], vocab_size=263 + len({*text, *"user model"}))


def places(tokenizer, text, n, low=1, high=10):
    tokens = tokenizer.encode_completion(text)
    return tokens, expected.find_places(tokenizer, tokens, parse.spans(tokenizer.decode(tokens), n), low, high)


def pieces(tokenizer, spelling):
    return [tokenizer.piece(token) for token in spelling]


def test_spellings_where_every_digit_is_a_piece():
    tokens, (first, second) = places(digits_apart(), "\\boxed{8, 10}", 2)
    assert digits_apart().decode(tokens[: first.start]) == "\\boxed{"
    assert pieces(digits_apart(), first.spellings[10]) == ["1", "0"] and pieces(digits_apart(), first.spellings[8]) == ["8"]
    assert [len(following) for following in first.contexts.values()] == [9, 1]
    branches, queries = expected.plan(tokens, [first, second])
    # What follows "1" is asked at the second score, which is 10, on the completion itself; at the first on a branch of its own.
    assert branches[1:] == [[*tokens[: first.start], *first.spellings[10]]]
    assert [(q.place, q.branch, q.position) for q in queries] == [
        (0, 0, first.start), (0, 1, first.start + 1), (1, 0, second.start), (1, 0, second.start + 1),
    ]  # fmt: skip


def test_spellings_where_a_brace_a_space_or_a_comma_shares_a_piece_with_a_digit():
    text = "Scores: \\boxed{4, 1}"
    tokens, found = places(tokenizer(), text, 2)
    for place, score in zip(found, (4, 1), strict=True):
        spelling = place.spellings[score]
        assert tuple(tokens[place.start : place.start + len(spelling)]) == spelling
        before = tokenizer().decode(tokens[: place.start])
        for score, spelling in place.spellings.items():
            after = tokenizer().decode(spelling)
            assert str(score) in after and text.startswith(before)
            assert before + after[: after.index(str(score))] in (text[: text.index("4")], text[: text.rindex("1")])
    assert any(len(pieces(tokenizer(), found[0].spellings[4])[0]) > 1 for place in found)


def test_what_a_critique_says_before_its_scores_makes_no_difference_to_their_spelling():
    """Also where the tokens are others than the tokenizer's own, and where some have no text."""
    plain, (place,) = places(digits_apart(), "\\boxed{8}", 1)
    odd = [*map(digits_apart().find, "\\boxe"), digits_apart().find("<0x64>"), digits_apart().find("{"), digits_apart().pad_id]
    odd += [digits_apart().find("8"), digits_apart().find("}"), digits_apart().end_of_turn_id]
    text = digits_apart().decode(odd)
    assert text == digits_apart().decode(plain) == "\\boxed{8}"
    (other,) = expected.find_places(digits_apart(), odd, parse.spans(text, 1), 1, 10)
    assert other.start == odd.index(digits_apart().find("8")) and other.spellings == place.spellings


def test_mean_by_hand():
    """p("1") = 1/2, after it 0 with 1/4; p("8") = 1/8; the rest is on no score."""
    _, (place,) = places(digits_apart(), "\\boxed{8}", 1)
    one, zero, eight = (digits_apart().find(digit) for digit in "108")
    likely = {one: 1 / 2, eight: 1 / 8}
    logprobs = {(): {t: math.log(likely.get(t, 1e-30)) for t in place.contexts[()]}, (one,): {zero: math.log(1 / 4)}}
    # P(1) = 3/8, P(10) = 1/8, P(8) = 1/8
    assert expected.mean(place, logprobs) == pytest.approx((1 * 3 + 10 + 8) / 5)


def brute_force(logprobs_after, tokenizer, before, spelt, low, high):
    """Every sequence of two tokens after `before`, read as the longest integer of the range that the text begins with."""
    mass = dict.fromkeys(range(low, high + 1), 0.0)
    after = np.exp(logprobs_after(before))
    digits = {tokenizer.find(d): d for d in "0123456789"}
    for first, digit in digits.items():
        then = np.exp(logprobs_after([*before, first]))
        for second in range(len(then)):
            text = digit + digits.get(second, "x")
            readings = [v for v in mass if text.startswith(str(v))]
            if readings:
                mass[max(readings)] += after[first] * then[second]
    total = sum(mass.values())
    return sum(v * m for v, m in mass.items()) / total


@pytest.mark.parametrize(("low", "high"), [(1, 10), (0, 1), (1, 12)])
def test_against_all_completions_of_the_box(low, high):
    """Each score of \\boxed{1, 1}: full logits of each context, all pairs of tokens; each digit is a piece of the tokenizer."""
    mine = digits_apart()
    config = dataclasses.replace(judge().models.policy.config, vocab_size=mine.vocab_size)
    params = compiled.init(config, jax.random.key(5))
    prompt = mine.encode_completion("Which one?")
    text = "\\boxed{1, 1}"
    tokens, found = places(mine, text, 2, low, high)
    branches, queries = expected.plan(tokens, found)
    groups = batches.pack([prompt], [branches], max_prompt=32, max_completion=32, group_size=len(branches))
    asked = np.zeros((1, len(queries), 16), np.int32)
    for s, query in enumerate(queries):
        asked[0, s, : len(query.following)] = query.following
    where = ([[getattr(query, name) for query in queries]] for name in ("branch", "position"))
    trunk = compiled.prefill(params, config, *map(jnp.asarray, (groups.trunk_tokens, groups.trunk_lengths)))
    program = readings.program(expected.context_logprobs, judge().models.layout, config)
    read = program(params, trunk, groups, *map(np.array, where), asked)
    known = [{}, {}]
    for query, row in zip(queries, np.asarray(read)[0], strict=True):
        known[query.place][query.context] = dict(zip(query.following, row.tolist(), strict=False))

    def logprobs_after(before):
        row = np.zeros((1, 48), np.int32)
        row[0, : len(before)] = before
        return np.asarray(jax.nn.log_softmax(compiled.logits(params, config, row)[0, len(before) - 1]))

    for place, logprobs in zip(found, known, strict=True):
        slow = brute_force(logprobs_after, mine, [*prompt, *tokens[: place.start]], text, low, high)
        assert expected.mean(place, logprobs) == pytest.approx(slow, abs=1e-4)


def test_no_context_is_longer_than_what_is_read_of_its_branch():
    """Also where a completion has fewer tokens from a score on than another score: 8, brace and terminator, and 1, 0, 0, 0."""
    tokens, found = places(digits_apart(), "\\boxed{8}", 1, 1, 1000)
    branches, queries = expected.plan(tokens, found)
    assert max(query.position for query in queries) == len(tokens)
    assert all(query.position < len(branches[query.branch]) for query in queries)
    assert all(branches[q.branch][found[0].start : q.position] == list(q.context) for q in queries)


def boxed(monkeypatch, write):
    """Every critique is replaced by one that says what `write(sample number, n)` returns, or None to leave it."""
    collect = scheduler.Engine.collect

    def replaced(self):
        for one in collect(self):
            task, _ = one.request.tag
            text = write(one.sample, task.comparison.n)
            yield one if text is None else dataclasses.replace(one, tokens=tokenizer().encode_completion(text))

    monkeypatch.setattr(scheduler.Engine, "collect", lambda self: list(replaced(self)))


@functools.cache
def plain_judge():
    """The small judge, but critiques are parsed as they should be."""
    return changed(policy={"prompter": Prompter(PromptConfig(), tokenizer())}, meta={})


def write(sample, n):
    if sample == 2:
        return "Scores: none"
    return "Scores: \\boxed{" + ", ".join(str(1 + (7 * sample + 3 * j) % 10) for j in range(n)) + "}"


def test_verdicts_are_read_from_expected_scores(monkeypatch):
    """Samples and their integers are those of the usual vote, and only what they count for is another."""
    boxed(monkeypatch, write)
    shown = comparisons()[:8]
    usual, read = (plain_judge().score(shown, **OPTIONS, read=read) for read in ("sampled", "expected"))
    tokens = plain_judge().usage.tokens
    plain_judge().score(shown, **OPTIONS)
    assert plain_judge().usage.tokens == tokens, "no more is sampled"
    for one, other in zip(usual, read, strict=True):
        assert [dataclasses.replace(s, expected=None) for s in other.samples] == list(one.samples)
        for sample in other.samples:
            assert (sample.expected is None) == (sample.scores is None)
            if sample.expected is not None:
                assert all(1 < score < 10 for score in sample.expected)
        assert other.scores == voting.rounded(voting.sum_vote([s.expected for s in other.samples], len(other.scores)))
        assert other.valid == one.valid == 5 and other.best is not None


def test_guided_votes_are_of_expected_scores_too(monkeypatch):
    boxed(monkeypatch, write)
    shown = comparisons()[:3]
    for guided, plain in zip(
        plain_judge().score(shown, **OPTIONS, read="expected", k_meta=2),
        plain_judge().score(shown, **OPTIONS, read="expected"),
        strict=True,
    ):
        assert [s.expected for s in guided.samples] == [s.expected for s in plain.samples]
        samples = guided.samples
        wanted = voting.guided_vote([s.expected for s in samples], [s.meta for s in samples], 2, len(guided.scores))
        assert guided.scores == voting.rounded(wanted)


def test_a_vote_without_scores_has_none_to_expect(monkeypatch):
    boxed(monkeypatch, lambda sample, n: "Scores: none")
    (verdict,) = plain_judge().score(comparisons()[:1], **OPTIONS, read="expected")
    assert verdict.scores is None and verdict.best is None and verdict.valid == 0


def test_a_judge_that_names_a_response_has_no_scores_to_expect():
    chooser = Prompter(PromptConfig("short_judge", "short_single", "short_meta", "short_judge"), tokenizer())
    with pytest.raises(InputError, match="^read='expected': template 'short_judge' names the best response and has no scores"):
        changed(policy={"prompter": chooser}).score(comparisons()[:1], **OPTIONS, read="expected")
    # One template that was asked for in place of all is read as the mode says.
    assert chooser.chooses and not Prompter(PromptConfig(*["short_judge"] * 4), tokenizer()).chooses


def test_scores_that_only_a_lenient_template_reads_have_no_expected_ones():
    prompter, comparison = Prompter(PromptConfig(template="deepseek_grm"), tokenizer()), comparisons()[0]
    task, order = tasks.Task(comparison, tasks.NO_PROMPTS), tuple(range(comparison.n))
    listed = ", ".join("7" for _ in order)
    for number, text in enumerate((f"Scores: [{listed}]", f"Scores: \\boxed{{{listed}}}", "Scores: none")):
        task.tokens[number] = tokenizer().encode_completion(text)
        (scores,) = prompter.read(comparison, order, [task.tokens[number]]).scores
        task.samples[number] = Sample(order, scores, None, text)
    assert [task.samples[number].scores is None for number in range(3)] == [False, False, True]
    reading = readings.ExpectedScores(changed(policy={"prompter": prompter}).models)
    work = reading.plan(readings.Critiques(task, order, [[0], [1], [2]]))
    assert [critique.same for critique in work.notes] == [[1]]
