"""How a stream is worked off: what is read ahead, compiled and said, and when a vote stops."""

import dataclasses
import gc
import re
import weakref

import jax
import numpy as np
import pytest
from small_judge import OPTIONS, changed, comparisons, judge, tokenizer, verdicts

from spct_jax import sharding
from spct_jax.data import batches
from spct_jax.data.comparison import Turn
from spct_jax.errors import InputError
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter as RealPrompter
from spct_jax.judging import adaptive, scheduler
from spct_jax.judging.options import Options
from spct_jax.judging.scheduler import Scheduler
from spct_jax.judging.unreadable import FIRST_SAMPLES, UnreadableWarning
from spct_jax.runtime import memory
from spct_jax.sampling import Shape, engine_shape
from spct_jax.sampling.engine_size import USABLE, Sizes
from spct_jax.sampling.prefilling import Prefiller


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
    for _ in range(FIRST_SAMPLES - 1):
        watch.count(False, cut)
    assert capsys.readouterr().err == ""
    watch.count(False, cut)
    watch.count(False, cut)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no verdict could be read in the first 64 samples" in line
    assert ("max_new_tokens (99) may be too small" in line) == cut
    assert ("the checkpoint carries no templates" in line) == (not carries and not cut)


def test_a_limit_that_the_shapes_set_is_the_one_that_is_said_to_be_too_small(capsys):
    """As in the evaluation of a run, where it is that of `data.max_completion`."""
    watch = UnreadableWarning(Options(buckets=((30, 20), (60, 45))), knows_templates=True)
    for _ in range(FIRST_SAMPLES):
        watch.count(False, True)
    assert "64 of them were cut: a limit of 45 tokens may be too small" in capsys.readouterr().err


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


def longest_prompt(comparison):
    """Of both orders of two responses, as the bucket that it is in."""
    encode = judge().models.policy.prompter.encode
    return batches.padded_length(max(len(encode(comparison, order)) for order in ((0, 1), (1, 0))))


def memory_for(rows, length, options):
    """Bytes of a device on which `rows` rows of shapes for two responses and prompts of this length fit, and no more."""
    models, options = judge().models, Options(**options)
    sizes = Sizes(models.layout, models.policy.config, 1 << 40, sharding.bytes_of_arrays(models.meta.params))
    shape = sizes.choose(length, options.max_new_tokens, options.samples_at_once(2), siblings=options.siblings(2))
    lengths = shape.max_prompt, shape.max_new_tokens
    shape = Shape.of_stream(*lengths, rows, shape.branches, siblings=shape.siblings)
    return int(sizes.account(shape).total / USABLE) + 1


def of_two_responses():
    return next(c for c in comparisons() if c.n == 2)


def test_a_shape_that_is_chosen_is_said_and_judges_as_one_that_is_given(capfd):
    options = OPTIONS | {"k": 8, "batch_size": 0}
    options["memory"] = memory_for(4, longest_prompt(of_two_responses()), options)
    one = changed()
    (chosen,) = one.score([of_two_responses()], **options)
    assert [chosen] == one.score([of_two_responses()], **options)  # and nothing is said again
    assert len(re.findall(r"batch_size=auto: 4 x 4 x 2 for [\d,]+ \+ 24 tokens \(rows x", capfd.readouterr().err)) == 1
    assert [chosen] == judge().score([of_two_responses()], **options | {"batch_size": 4})


def test_a_meta_rm_that_is_larger_than_the_policy_needs_more_to_read():
    models, options = judge().models, Options(**OPTIONS | {"k_meta": 2, "batch_size": 0, "memory": 1 << 40})
    wide = dataclasses.replace(models.meta.config, ffw_width=64 * models.meta.config.ffw_width)

    def work(config):
        sizes = Scheduler(dataclasses.replace(models, meta=dataclasses.replace(models.meta, config=config)), options)._sizes
        return sizes.account(sizes.choose(64, 24, 4)).work

    assert work(wide) > 16 * work(models.meta.config)


def test_where_not_even_a_short_prompt_fits_nothing_is_compiled(capfd):
    with pytest.raises(InputError, match=r"^a prompt of \d+ and a completion of 24 tokens need .* GiB of a device"):
        next(judge().stream(comparisons(), **OPTIONS | {"batch_size": 0, "memory": 10**5}))
    assert "compiling" not in capfd.readouterr().err


def test_engines_that_do_not_fit_at_once_take_turns(monkeypatch):
    """The slots of one are gone and returned before another's are there, and verdicts are the same."""
    short = of_two_responses()
    long = dataclasses.replace(short, id="long", responses=(short.responses[0], "Alba has wifi. " * 40))
    options = OPTIONS | {"k": 2, "batch_size": 0, "max_new_tokens": 8}
    options["memory"] = memory_for(2, longest_prompt(long), options)
    alive, most, returned = weakref.WeakSet(), [], []

    class Watched(scheduler.Engine):
        def __init__(self, *arguments):
            alive.add(self)
            most.append(len(alive))
            super().__init__(*arguments)

    monkeypatch.setattr(scheduler, "Engine", Watched)
    monkeypatch.setattr(memory, "give_back", lambda: returned.append((len(most), len(alive))))
    mixed = [short, long, dataclasses.replace(short, id="short")]
    apart = judge().score(mixed, **options)
    assert len(most) >= 2 and max(most) == 1
    assert {(begun, 0) for begun in range(1, len(most))} <= {*returned}
    monkeypatch.setattr(Sizes, "together", lambda *_: True)
    assert judge().score(mixed, **options) == apart and max(most) == 2


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


def test_what_prompts_begin_with_is_computed_once_and_a_verdict_depends_on_its_comparison_alone(monkeypatch):
    """The template's preamble for all, and a long conversation for all orders; the meta RM reads in the same way."""
    monkeypatch.setattr(engine_shape, "LEAST_SHARED", 4)
    one, count = changed(meta={}), len(judge().models.policy.prompter.preamble)
    pairs, read = [c for c in comparisons() if c.n == 2][:3], []
    asked = [(*c.conversation[:-1], Turn("user", c.conversation[-1].content + " Alba has wifi." * 6)) for c in pairs]
    shown = [dataclasses.replace(c, conversation=turns) for c, turns in zip(pairs, asked, strict=True)]
    admit = Prefiller.admit
    monkeypatch.setattr(Prefiller, "admit", lambda self, request: (admit(self, request), read.append(request)))
    together = one.score(shown, **OPTIONS, k_meta=3)
    assert count >= 4 and one.usage.shared_tokens > one.usage.prefills * count
    # Both what engines and what readings ask for; the latter have no key.
    assert {request.key is None for request in read if request.split.stem} == {True, False}
    assert one.score(shown[1:2], **OPTIONS, k_meta=3) == together[1:2]
