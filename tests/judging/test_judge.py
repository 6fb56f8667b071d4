"""Verdicts on a stream, from a small random model whose critiques are scored by their tokens."""

import dataclasses
import functools
import gc
import json
import os
import subprocess
import sys
import weakref

import jax
import numpy as np
import pytest

import spct_jax
from spct_jax import checkpoints, convert, models, sharding
from spct_jax.checkpoints import ModelKind
from spct_jax.config import Config
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.errors import InputError
from spct_jax.grm import orders, voting
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter as RealPrompter
from spct_jax.grm.template import load_template
from spct_jax.judging import adaptive, scheduler, token_prob, unread
from spct_jax.judging.judge import Judge
from spct_jax.judging.options import Options
from spct_jax.models import sizes
from spct_jax.sharding import logical
from spct_jax.toy import world
from spct_jax.toy.config import ToyConfig
from spct_jax.training import context as runs
from spct_jax.training import grouped

WORLD = ToyConfig(demonstrations=40)
OPTIONS = {"k": 6, "temperature": 1.0, "max_new_tokens": 24, "batch_size": 4}


class Prompter(RealPrompter):
    """Reads scores off the tokens: an untrained model writes no box. Every seventh critique does not parse."""

    def read(self, comparison, order, completions):
        read = super().read(comparison, order, completions)
        scores = tuple(
            None if s % 7 == 0 else tuple(1 + s * (3 + j) % 10 for j in range(comparison.n))
            for s in (sum(c.tolist()) for c in read.completions)
        )
        return dataclasses.replace(read, scores=scores)


@functools.cache
def tokenizer():
    shown = world.demonstrations(WORLD, load_template("short"), load_template("short_single"))
    texts = [turn.content for d in shown for turn in d.turns] + [c for d in shown for c in d.completions]
    # Often enough that every number with its brace is a piece, whatever else the world says.
    choices = [f"Best: \\boxed{{{number}}}" for number in range(1, 5)] * 50
    return train_tokenizer([*texts, *choices], vocab_size=600)


@functools.cache
def judge(devices=1):
    layout = sharding.make_layout(devices=jax.devices()[:devices])
    config = dataclasses.replace(sizes.toy(tokenizer().vocab_size), num_layers=2, final_softcap=5.0)
    params = jax.device_put(jax.jit(models.init, static_argnums=0)(config, jax.random.key(0)), layout.replicated)
    prompter = Prompter(PromptConfig(), tokenizer())
    meta = {"model": params, "head": jax.device_put(models.init_score_head(config, jax.random.key(1)), layout.replicated)}
    return Judge(layout, params, config, prompter, meta=(meta, config, prompter))


@functools.cache
def comparisons():
    shown = [p.comparison for p in world.problems("train", 24, WORLD)]
    return [dataclasses.replace(c, scores=None) for c in shown]


@functools.cache
def verdicts(**changes):
    return judge().score(comparisons(), **OPTIONS | changes)


def test_verdicts_come_in_order_and_add_up():
    assert [v.id for v in verdicts()] == [c.id for c in comparisons()]
    for comparison, verdict in zip(comparisons(), verdicts(), strict=True):
        scores = [s.scores for s in verdict.samples]
        assert verdict.k == len(scores) == 6 and verdict.valid == sum(s is not None for s in scores)
        assert verdict.scores == voting.sum_vote(scores, comparison.n)
        top = voting.winners(verdict.scores)
        assert (verdict.best, verdict.tied) == ((top[0], ()) if len(top) == 1 else (None, top))
        shown = [s.order for s in verdict.samples]
        assert shown == [orders.sample_order(comparison.n, "balanced", 0, comparison.id, i) for i in range(6)]
        assert all(s.meta is None for s in verdict.samples)


def test_a_verdict_is_the_same_alone_in_company_and_in_any_order():
    want = {v.id: v for v in verdicts()}
    mixed = [comparisons()[i] for i in np.random.default_rng(1).permutation(24)]
    assert judge().score(mixed, **OPTIONS) == [want[c.id] for c in mixed]
    assert judge().score(mixed[:1], **OPTIONS) == [want[mixed[0].id]]
    assert judge().score(mixed[:7], **OPTIONS) == [want[c.id] for c in mixed[:7]]


def test_fewer_samples_are_a_prefix():
    for few, many in zip(verdicts(k=4), verdicts(), strict=True):
        assert [(s.order, s.text) for s in few.samples] == [(s.order, s.text) for s in many.samples[:4]]


def test_other_seeds_and_random_orders_are_others():
    assert verdicts(seed=1) != verdicts()
    for comparison, verdict in zip(comparisons(), verdicts(order="random"), strict=True):
        assert [s.order for s in verdict.samples] == [orders.random_order(comparison.n, 0, comparison.id, i) for i in range(6)]


def test_meta_rewards_are_those_of_each_critique_by_itself():
    guided = verdicts(k_meta=3)
    for comparison, verdict, plain in zip(comparisons(), guided, verdicts(), strict=True):
        assert [s.text for s in verdict.samples] == [s.text for s in plain.samples]
        metas = [s.meta for s in verdict.samples]
        assert len(set(metas)) > 1 or len({s.text for s in verdict.samples}) == 1
        assert verdict.scores == voting.guided_vote([s.scores for s in verdict.samples], metas, 3, comparison.n)
    again = judge().score(comparisons()[5:6], **OPTIONS, k_meta=3)
    assert again == guided[5:6]


def test_the_stream_is_read_only_as_far_as_needed():
    taken = []

    def endless():
        for i in range(10**6):
            taken.append(i)
            yield dataclasses.replace(comparisons()[i % 24], id=str(i))

    outcomes = judge().stream(endless(), **OPTIONS)
    assert [next(outcomes).id for _ in range(30)] == [str(i) for i in range(30)]
    assert len(taken) < 1000


def test_sixteen_responses_stand_once_in_every_place_over_sixteen_samples():
    many = dataclasses.replace(comparisons()[0], id="many", responses=tuple(f"Alba has wifi, tea {i}." for i in range(16)))
    (verdict,) = judge().score([many], **OPTIONS | {"k": 16, "max_new_tokens": 8})
    assert {len(s.scores) for s in verdict.samples if s.scores} == {16} and len(verdict.scores) == 16
    for place in range(16):
        assert sorted(s.order[place] for s in verdict.samples) == list(range(16))


def test_a_prompt_that_does_not_fit_is_an_error_in_its_place():
    long = dataclasses.replace(comparisons()[0], id="long", responses=("parking " * 300, "wifi"))
    outcomes = list(judge().stream([comparisons()[0], long, comparisons()[1]], max_prompt=256, **OPTIONS))
    assert [outcomes[0], outcomes[2]] == judge().score(comparisons()[:2], max_prompt=256, **OPTIONS)
    assert isinstance(outcomes[1], InputError) and "longer than the context" in str(outcomes[1])
    with pytest.raises(InputError, match="'long': prompt longer"):
        judge().score([long], max_prompt=256, **OPTIONS)


def uneven():
    """A comparison whose prompt is longer the other way round: white space at the end is trimmed."""
    shown = [dataclasses.replace(comparisons()[0], id=str(i), responses=("wifi" + "\n" * 9, "parking")) for i in range(9)]
    return next(c for c in shown if orders.sample_order(2, "balanced", 0, c.id, 0) == (1, 0))


@pytest.mark.parametrize("change", [{}, {"order": "random"}, {"adaptive": 0.3}, {"mode": "choice"}])
def test_the_shape_of_a_comparison_is_that_of_its_longest_order_whether_or_not_it_is_drawn(change):
    for k in (1, 2):
        prepared = scheduler.Stream(judge(), Options(k=k, **change))._prepare(uneven())
        encode = judge().prompter.encode_choice if "mode" in change else judge().prompter.encode
        assert prepared.longest == len(encode(uneven(), (0, 1))) > len(encode(uneven(), (1, 0)))
    options = {"k": 1, "max_prompt": prepared.longest - 1, "max_new_tokens": 4} | change
    (outcome,) = judge().stream([uneven()], **options)
    assert isinstance(outcome, InputError)


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


def test_a_comparison_that_is_too_long_by_its_characters_is_not_tokenised(monkeypatch):
    long = dataclasses.replace(comparisons()[0], responses=("<bos>" * 100_000, "wifi"))
    monkeypatch.setattr(Prompter, "encode", None)
    (outcome,) = judge().stream([long], **OPTIONS, max_prompt=256)
    assert str(outcome) == "prompt longer than the context (more than 256 tokens)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, r"^k: 0 is not in"),
        ({"k_meta": 7}, "^k_meta: 7 is more than"),
        ({"temperature": -0.5}, "temperature"),
        ({"order": "alphabetical"}, "'alphabetical' is none of balanced, random"),
        ({"mode": "guess"}, "'guess' is none of scores, choice, token_prob"),
        ({"adaptive": 0.1, "k_meta": 2}, "exclude each other"),
        ({"adaptive": 0.1, "mode": "token_prob"}, "exclude each other"),
        ({"adaptive": 1.5}, "adaptive"),
        ({"seed": 2**32}, r"^seed: 4294967296 is not in \[0, 4294967295\]"),
        ({"seed": -1}, "^seed: -1 is not in"),
    ],
)
def test_options_out_of_range_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        judge().score(comparisons()[:1], **OPTIONS | change)


def test_prompts_and_critiques_beyond_the_models_positions_are_refused():
    """By the judge before anything is drawn; where no length is given, prompts get what critiques leave."""
    one = judge()
    short = Judge(one.layout, one.params, dataclasses.replace(one.config, max_positions=9000), one.prompter)
    with pytest.raises(InputError, match="8,192 [+] 1,024 = 9,216 tokens; the model has 9,000 positions"):
        short.stream([], max_prompt=8192)
    with pytest.raises(InputError, match="1 [+] 9,000 = 9,001 tokens; the model has 9,000 positions"):
        short.stream([], max_new_tokens=9000)
    with pytest.raises(InputError, match="8,000 [+] 1,001 = 9,001 tokens"):
        short.stream([], buckets=((10, 20), (8000, 1001)))
    meta = Judge(one.layout, one.params, one.config, one.prompter, (*one.meta[:1], short.config, one.prompter))
    with pytest.raises(InputError, match="the model has 9,000 positions"):
        meta.stream([], max_prompt=8192)
    assert Options().for_model(short.config).max_prompt == 9000 - 1024
    assert Options().for_model(one.config).max_prompt == Options().for_model(sizes.gemma3_27b()).max_prompt == 8192
    assert Options().for_model(sizes.gemma2_27b()).max_prompt == 8192 - 1024


def test_slots_and_weights_are_let_go_with_their_stream():
    """Without the garbage collector, which does not know how large they are."""
    whole = judge()
    whole.score(comparisons()[:2], **OPTIONS, k_meta=3)
    gc.collect()
    gc.disable()
    try:
        before = sum(x.nbytes for x in jax.live_arrays())
        one = Judge(whole.layout, jax.tree.map(np.copy, whole.params), whole.config, whole.prompter, whole.meta)
        one.score(comparisons()[:2], **OPTIONS, k_meta=3)
        gone = weakref.ref(one)
        del one
        assert gone() is None and sum(x.nbytes for x in jax.live_arrays()) < before + 1000
    finally:
        gc.enable()


def test_a_judge_of_nan_gives_no_verdicts():
    """Neither one whose policy is NaN nor one whose meta RM is, whatever the way they came into memory."""
    whole = judge()
    params, config, prompter = whole.meta
    spoiled = jax.tree.map(lambda x: x * np.nan, params)
    options = OPTIONS | {"k": 2, "max_new_tokens": 8}
    policy = Judge(whole.layout, spoiled["model"], config, prompter)
    with pytest.raises(InputError, match="the model's logits are NaN or infinite"):
        policy.score(comparisons()[:1], **options)
    guided = Judge(whole.layout, whole.params, config, prompter, meta=(spoiled, config, prompter))
    with pytest.raises(InputError, match="a score of the meta RM is NaN or infinite"):
        guided.score(comparisons()[:1], **options, k_meta=2)


def test_k_meta_needs_a_meta_rm():
    plain = Judge(judge().layout, judge().params, judge().config, judge().prompter)
    with pytest.raises(InputError, match="needs a meta RM"):
        plain.score(comparisons()[:1], **OPTIONS, k_meta=2)


def test_templates_travel_with_a_model_in_every_layout(tmp_path, monkeypatch):
    """A template file of the user's own, gone by the time the model is used, and from another directory."""
    monkeypatch.chdir(tmp_path)
    own = load_template("short_no_principles").text.replace("Judge:", "Judge well:")
    (tmp_path / "mine.txt").write_text(own)
    one = judge()
    model = checkpoints.Model(one.params, one.config, tokenizer())
    checkpoints.save(tmp_path / "bare", model)
    assert spct_jax.Judge.load(tmp_path / "bare", mesh=one.layout).prompter.template.name == "default"
    checkpoints.save(tmp_path / "ours", dataclasses.replace(model, prompt=PromptConfig(template="mine.txt")))
    (tmp_path / "mine.txt").unlink()
    for source, target, layout in [("ours", "hf", "hf"), ("hf", "again", "orbax"), ("again", "last", "hf")]:
        convert.convert(tmp_path / source, tmp_path / target, layout, dtype=None)
    monkeypatch.chdir("/")
    for name in ("ours", "hf", "again", "last"):
        loaded = spct_jax.Judge.load(tmp_path / name, mesh=one.layout)
        assert loaded.prompter.template.text == own, name
        assert loaded.prompter.meta.text == load_template("short_meta").text, name
        config = Config(init_checkpoint=str(tmp_path / name))
        assert load_template(runs.name_templates(config).prompt.template).text == own, name
        config.prompt.template = "default"
        named = runs.name_templates(config).prompt
        assert named.template == "default" and load_template(named.meta_template) == loaded.prompter.meta
    asked = PromptConfig(template="default", single_template="", meta_template="", choice_template="")
    loaded = spct_jax.Judge.load(tmp_path / "last", mesh=one.layout, prompt=asked)
    assert loaded.prompter.template.name == "default" and loaded.prompter.meta.text == load_template("short_meta").text
    with pytest.raises(InputError, match="holds a policy checkpoint, not a meta_rm one"):
        spct_jax.Judge.load(tmp_path / "ours", tmp_path / "ours", mesh=one.layout)
    (tmp_path / "last" / "templates" / "meta_template.txt").unlink()
    with pytest.raises(InputError, match="meta_template.txt: missing"):
        spct_jax.Judge.load(tmp_path / "last", mesh=one.layout)


@pytest.mark.parametrize("carries", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_a_judge_that_cannot_be_read_says_so_at_once(carries, cut, capsys):
    watch = unread.Watch(Options(max_new_tokens=99), carries)
    for _ in range(unread.FIRST - 1):
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
    plain = Judge(one.layout, one.params, one.config, RealPrompter(PromptConfig(), tokenizer()))
    plain.score(comparisons()[:11], **OPTIONS)
    assert "no verdict could be read in the first 64 samples" in capsys.readouterr().err
    one.score(comparisons()[:11], **OPTIONS)
    assert "no verdict could be read" not in capsys.readouterr().err


def test_a_judge_holds_matrices_in_the_models_dtype(tmp_path):
    """Stages keep float32; a judge of bfloat16 takes half of it from the start, its meta RM too, norm scales and head apart."""
    one = judge()
    half = dataclasses.replace(one.config, dtype="bfloat16")
    meta_params, _, _ = one.meta
    for kind, params in ((ModelKind.POLICY, one.params), (ModelKind.META_RM, meta_params)):
        checkpoints.save(tmp_path / kind.value, checkpoints.Model(params, half, tokenizer(), kind, prompt=PromptConfig()))
        found = checkpoints.load(tmp_path / kind.value, kind=kind, dtype=checkpoints.COMPUTE)
        wanted = logical.cast(params, "bfloat16")
        assert jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), found.params, wanted))
        assert found.config == half
    loaded = spct_jax.Judge.load(tmp_path / "policy", tmp_path / "meta_rm", mesh=one.layout)
    for held, stored in ((loaded.params, one.params), (loaded.meta[0], meta_params)):
        sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (held, stored)]
        assert sizes[0] < 0.51 * sizes[1]


def test_a_hugging_face_directory_judges_alike(tmp_path):
    one = judge()
    checkpoints.save(tmp_path / "model", checkpoints.Model(one.params, one.config, tokenizer()))
    convert.convert(tmp_path / "model", tmp_path / "hf", "hf", dtype=None)
    loaded = spct_jax.Judge.load(tmp_path / "hf", mesh=one.layout, prompt=PromptConfig())
    got = loaded.score(comparisons()[:4], **OPTIONS)
    assert [[s.text for s in v.samples] for v in got] == [[s.text for s in v.samples] for v in verdicts()[:4]]


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


def test_the_chance_of_another_verdict_is_that_of_simulated_votes():
    """Scores drawn from a normal distribution; the estimate from 8 of 32 samples against how often the rest turns the vote."""
    rng = np.random.default_rng(0)
    turned, estimated = [], []
    for _ in range(2000):
        samples = rng.normal(rng.normal(0, 4, (1, 2)), 3.0, (32, 2))
        estimated.append(adaptive.flip_chance(samples[:8].tolist(), 2, 32))
        turned.append(samples[:8].sum(0).argmax() != samples.sum(0).argmax())
    assert np.mean(estimated) == pytest.approx(np.mean(turned), abs=0.03)
    likely = np.array(estimated) > 0.2
    assert np.mean(np.array(turned)[likely]) == pytest.approx(np.mean(np.array(estimated)[likely]), abs=0.06)


def test_votes_that_cannot_or_need_not_go_on():
    assert adaptive.flip_chance([[5]], 1, 8) == 0
    assert adaptive.flip_chance([[1, 9], [9, 1]], 2, 2) == 0
    assert adaptive.flip_chance([None, None], 2, 8) == 1
    assert adaptive.flip_chance([[9, 1]] * 8, 2, 32) < 1e-4 < adaptive.flip_chance([[6, 5]] * 8, 2, 32)


def test_votes_of_an_llm_judge_and_their_weights():
    """The completion is given; its last box names place 2."""
    text = "so it is \\boxed{1}, no: Best: \\boxed{2}"
    tokens = tokenizer().encode_completion(text)
    position, candidates = token_prob.locate(tokenizer(), tokens, 3)
    assert "2" in tokenizer().piece(tokens[position]) and tokens[position] == candidates[1]
    assert tokenizer().decode(tokens[:position]).endswith("\\boxed{") or "{" in tokenizer().piece(tokens[position])
    one, prompt = judge(), tokenizer().encode_completion("Which one?")
    groups = grouped.batches.pack([prompt], [[tokens]], max_prompt=16, max_completion=64, group_size=1)
    got = token_prob.choice_probabilities(
        one.params, groups, np.array([[position]]), np.array([[[*candidates, token_prob.ABSENT]]]), config=one.config
    )[0, 0]
    row = np.array([[*prompt, *tokens]])
    logits = models.logits(one.params, one.config, row)[0, len(prompt) + position - 1]
    np.testing.assert_allclose(got[:3], jax.nn.softmax(logits[np.array(candidates)]), atol=1e-5)
    assert got[3] == 0


@pytest.mark.parametrize("mode", ["choice", "token_prob"])
def test_choices_are_counted_in_input_order(mode, monkeypatch):
    """Every critique is replaced by one that names the second place."""
    answer = tokenizer().encode_completion("Best: \\boxed{2}")
    collect = scheduler.Engine.collect
    monkeypatch.setattr(
        scheduler.Engine, "collect", lambda self: [dataclasses.replace(f, tokens=answer) for f in collect(self)]
    )
    pairs = [c for c in comparisons() if c.n > 1]
    for verdict, comparison in zip(judge().score(pairs, **OPTIONS, mode=mode), pairs, strict=True):
        for sample in verdict.samples:
            assert sample.scores.index(max(sample.scores)) == sample.order[1] or mode == "token_prob"
            assert sum(sample.scores) == pytest.approx(1, abs=1e-5)
        assert sum(verdict.scores) == pytest.approx(6, abs=1e-4)
        assert verdict.truncated == 0 and not any(s.truncated for s in verdict.samples)
        if mode == "choice":
            assert verdict.scores == tuple(sum(s.order[1] == i for s in verdict.samples) for i in range(comparison.n))
        else:
            assert len({max(s.scores) for s in verdict.samples}) > 1


def test_a_tie_has_no_best(monkeypatch):
    """Whatever the order of the responses: the second and third of three, as shown, get the same."""
    monkeypatch.setattr(judge(), "prompter", RealPrompter(PromptConfig(), tokenizer()))
    answer, collect = tokenizer().encode_completion("Scores: \\boxed{3, 8, 8}"), scheduler.Engine.collect
    monkeypatch.setattr(
        scheduler.Engine, "collect", lambda self: [dataclasses.replace(f, tokens=answer) for f in collect(self)]
    )
    one = next(c for c in comparisons() if c.n == 3)
    (verdict,) = judge().score([one], **OPTIONS | {"k": 1})
    assert verdict.best is None and verdict.tied == tuple(sorted(verdict.samples[0].order[1:]))
    (verdict,) = judge().score([one], **OPTIONS | {"k": 3})  # each response once in each place
    assert (verdict.scores, verdict.best, verdict.tied) == ((19, 19, 19), None, (0, 1, 2))


@pytest.mark.parametrize("mode", ["scores", "choice", "token_prob"])
def test_a_completion_cut_at_the_limit_is_no_vote(mode, monkeypatch):
    """Of a comparison's six critiques, all of them with a box, the first two lack their terminators."""
    monkeypatch.setattr(judge(), "prompter", RealPrompter(PromptConfig(), tokenizer()))
    one = next(c for c in comparisons() if c.n == 2)
    text = "Scores: \\boxed{8, 3}" if mode == "scores" else "Best: \\boxed{1}"
    answer, collect = tokenizer().encode_completion(text), scheduler.Engine.collect

    def cut(finished):
        return dataclasses.replace(finished, tokens=answer[:-1] if finished.sample < 2 else answer)

    monkeypatch.setattr(scheduler.Engine, "collect", lambda self: [*map(cut, collect(self))])
    (verdict,) = judge().score([one], **OPTIONS, mode=mode)
    assert [s.truncated for s in verdict.samples] == [s.scores is None for s in verdict.samples] == [True] * 2 + [False] * 4
    assert (verdict.valid, verdict.truncated) == (4, 2)
    assert sum(verdict.scores) == pytest.approx(44 if mode == "scores" else 4)
    assert voting.sum_vote([s.scores for s in verdict.samples[2:]], 2) == verdict.scores


def test_two_devices_give_the_same_critiques():
    got = judge(2).score(comparisons(), **OPTIONS)
    same = [a.text == b.text for v, w in zip(got, verdicts(), strict=True) for a, b in zip(v.samples, w.samples, strict=True)]
    assert np.mean(same) >= 0.99


def run_command(directory, output, *flags):
    """`python -m spct_jax.judge` on eight virtual devices: its exit status, the texts it wrote, what it said went wrong."""
    command = [sys.executable, "-m", "spct_jax.judge", f"--checkpoint={directory}/model", f"--input={directory}/in.jsonl"]
    command += [f"--output={directory}/{output}", "--cpu_devices=8", "--k=2", "--temperature=0", "--max_new_tokens=24", *flags]
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = (directory / output).read_text().splitlines()
    return done.returncode, [[s["text"] for s in json.loads(line)["samples"]] for line in lines], done.stderr


def test_the_command_gives_the_same_greedy_verdicts_on_any_mesh(tmp_path):
    """Heads, feed-forward and vocabulary split in two, parameters along their width besides, rows over the rest."""
    # A fresh model repeats its last token, whatever it has read; this one does not.
    config, rng = dataclasses.replace(judge().config, num_heads=4, num_kv_heads=2, tied=False), np.random.default_rng(0)
    fresh = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.2, x.shape).astype(x.dtype), fresh)
    checkpoints.save(tmp_path / "model", checkpoints.Model(params, config, tokenizer()))
    shown = [{"id": c.id, "query": c.query, "responses": c.responses} for c in comparisons()[:6]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in shown))
    code, want, error = run_command(tmp_path, "whole.jsonl")
    assert code == 0 and len(want) == 6 and len({text for texts in want for text in texts}) > 6, error
    for flags in (["--strategy=tensor", "--tensor=2"], ["--strategy=fsdp_tensor", "--tensor=2"]):
        code, got, error = run_command(tmp_path, f"{'_'.join(flags)}.jsonl", *flags)
        assert code == 0 and got == want, (flags, error)
    for flags, message in (
        (["--strategy=tensor", "--tensor=3"], "error: 8 devices cannot be arranged in slices=1 and tensor=3\n"),
        (["--tensor=2"], "error: --tensor: 2 does not go with strategy='data'\n"),
    ):
        assert run_command(tmp_path, "none.jsonl", *flags) == (2, [], message)


def test_the_shapes_that_can_be_known_are_compiled_before_the_first_verdict(capfd):
    """All in the order in which they come, said in one line, and once only."""
    one = Judge(judge().layout, judge().params, judge().config, judge().prompter)
    long = [
        dataclasses.replace(c, id=f"{c.id}-long", responses=(*c.responses[1:], "Alba has wifi. " * 40)) for c in comparisons()
    ]
    mixed = [c for pair in zip(comparisons(), long, strict=True) for c in pair][:8]
    options = OPTIONS | {"batch_size": 3}
    first = next(one.stream(mixed, **options))
    lengths = sorted(shape.max_prompt for shape, _ in one.shapes)
    assert len(lengths) >= 2 and f"compiling for prompts of up to {lengths[0]}" in capfd.readouterr().err
    assert one.score(mixed, **options)[0] == first
    assert len(one.shapes) == len(lengths) and "compiling" not in capfd.readouterr().err
