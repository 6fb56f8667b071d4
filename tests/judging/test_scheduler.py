"""How a stream is worked off: what is read ahead, compiled and said, and when a vote stops."""

import dataclasses
import gc
import re
import weakref

import jax
import numpy as np
import pytest
from small_judge import OPTIONS, changed, comparisons, judge, tokenizer, verdicts

from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter as RealPrompter
from spct_jax.judging import adaptive, scheduler
from spct_jax.judging.options import Options
from spct_jax.judging.scheduler import UnreadableWarning


def test_the_stream_is_read_only_as_far_as_needed():
    taken = []

    def endless():
        for i in range(10**6):
            taken.append(i)
            yield dataclasses.replace(comparisons()[i % 24], id=str(i))

    outcomes = judge().stream(endless(), **OPTIONS)
    assert [next(outcomes).id for _ in range(30)] == [str(i) for i in range(30)]
    assert len(taken) < 1000


def test_what_is_read_ahead_is_bounded_by_its_length(monkeypatch):
    """Long comparisons are taken one by one, whatever the window, and a verdict is what it was."""
    taken, done, ahead = [], [], []

    def watched():
        for comparison in comparisons()[:6]:
            taken.append(comparison)
            yield comparison

    monkeypatch.setattr(scheduler, "MOST_PREPARED", 10)
    monkeypatch.setattr(scheduler, "MOST_HELD", 10)
    for verdict in judge().stream(watched(), **OPTIONS):
        done.append(verdict)
        ahead.append(len(taken) - len(done))
    assert done == verdicts()[:6] and max(ahead) <= 1


def test_the_shapes_that_can_be_known_are_compiled_before_the_first_verdict(capfd):
    """All in the order in which they come, said in one line, and once only."""
    one = changed()
    long = [
        dataclasses.replace(c, id=f"{c.id}-long", responses=(*c.responses[1:], "Alba has wifi. " * 40)) for c in comparisons()
    ]
    mixed = [c for pair in zip(comparisons(), long, strict=True) for c in pair][:8]
    options = OPTIONS | {"batch_size": 3}
    first = next(one.stream(mixed, **options))
    (said,) = re.findall("compiling for prompts of up to (.*) tokens\n", capfd.readouterr().err)
    assert len(said.split(" / ")) >= 2
    assert one.score(mixed, **options)[0] == first
    assert "compiling" not in capfd.readouterr().err


@pytest.mark.parametrize("carries", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_a_judge_that_cannot_be_read_says_so_at_once(carries, cut, capsys):
    watch = UnreadableWarning(Options(max_new_tokens=99), carries)
    for _ in range(scheduler.FIRST_SAMPLES - 1):
        watch.count(False, cut)
    assert capsys.readouterr().err == ""
    watch.count(False, cut)
    watch.count(False, cut)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no verdict could be read in the first 64 samples" in line
    assert ("max_new_tokens (99) may be too small" in line) == cut
    assert ("the checkpoint carries no templates" in line) == (not carries and not cut)


def test_a_stream_that_cannot_be_read_says_so(capsys):
    one = judge()
    plain = changed({"prompter": RealPrompter(PromptConfig(), tokenizer())})
    plain.score(comparisons()[:11], **OPTIONS)
    assert "no verdict could be read in the first 64 samples" in capsys.readouterr().err
    one.score(comparisons()[:11], **OPTIONS)
    assert "no verdict could be read" not in capsys.readouterr().err


def test_adaptive_votes_stop_at_a_whole_round_and_are_prefixes_of_the_full_vote():
    stopped = verdicts(adaptive=0.3, k=12)
    for comparison, verdict, full in zip(comparisons(), stopped, verdicts(k=12), strict=True):
        assert verdict.k % comparison.n == 0 or verdict.k == 12
        assert [s.text for s in verdict.samples] == [s.text for s in full.samples[: verdict.k]]
        drawn = [s.scores for s in verdict.samples]
        assert verdict.k == 12 or adaptive.decided(drawn, comparison.n, 12, 0.3)
        for m in range(comparison.n, verdict.k, comparison.n):
            assert not adaptive.decided(drawn[:m], comparison.n, 12, 0.3)
    assert {1} < {v.k for v in stopped}
    assert judge().score(comparisons()[3:4], **OPTIONS | {"adaptive": 0.3, "k": 12}) == stopped[3:4]


def test_slots_and_weights_are_let_go_with_their_stream():
    """Without the garbage collector, which does not know how large they are."""
    whole = judge()
    whole.score(comparisons()[:2], **OPTIONS, k_meta=3)
    gc.collect()
    gc.disable()
    try:
        before = sum(x.nbytes for x in jax.live_arrays())
        one = changed({"params": jax.tree.map(np.copy, whole.models.policy.params)}, meta={})
        one.score(comparisons()[:2], **OPTIONS, k_meta=3)
        gone = weakref.ref(one)
        del one
        assert gone() is None and sum(x.nbytes for x in jax.live_arrays()) < before + 1000
    finally:
        gc.enable()
