"""The longest prompt over all orders, found from few of them."""

import dataclasses
import itertools
import random

import pytest

from spct_jax.data.comparison import Comparison, Turn
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.grm import lengths
from spct_jax.grm.config import PromptConfig
from spct_jax.grm.prompts import Prompter
from spct_jax.grm.render import render
from spct_jax.grm.template import load_template, template_names

CORPUS = [f"Response {i} is quiet: it has {i} rooms, wifi and 1{i} pools.\n\n[Response {i} ends]" for i in range(13)] * 9
PIECES = [" ", "\n", "\n\n", "quiet", "it has", "1", "10", "[Response", "]", "<bos>", "\u6f22", "pool s", "."]
OWN = """--- response
Response {number}{response}
--- prompt
Judge. {conversation} {responses}"""


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CORPUS, vocab_size=700)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates") / "own.txt"
    path.write_text(OWN)
    return str(path)


def made(rng, n):
    responses = ["x" + "".join(rng.choices(PIECES, k=rng.randrange(6))) for _ in range(n)]
    return Comparison(conversation=[Turn("user", "q" + rng.choice(PIECES))], responses=responses, scores=[*range(n)])


def every_length(tokenizer, template, comparison, hint):
    for order in itertools.permutations(range(comparison.n)):
        yield len(tokenizer.encode_turns(render(comparison, order, template, hint=hint)))


@pytest.mark.parametrize("name", [*template_names(), "own"])
def test_no_order_gives_a_longer_prompt(tokenizer, own, name):
    template, rng, differ = load_template(own if name == "own" else name), random.Random(name), 0
    for n, hinted in itertools.product((1, 2, 3, 4), (False, True) if template.hint else (False,)):
        for _ in range(12):
            shown = made(rng, n)
            hint = shown.best if hinted else None

            def count(order, shown=shown, hint=hint):
                return tokenizer.count_turns(render(shown, order, template, hint=hint))

            found = lengths.longest(shown, template, tokenizer, count, hinted=hinted, limit=10_000)
            each = set(every_length(tokenizer, template, shown, hint))
            differ += len(each) > 1
            assert max(each) <= found <= max(each) + hinted, (shown, sorted(each))
    assert differ > 3 or lengths.dependence(tokenizer, template, False) == "none"


@pytest.mark.parametrize("name", [*template_names(), "own"])
def test_no_prompt_has_more_tokens_than_its_bound(tokenizer, own, name):
    template, rng = load_template(own if name == "own" else name), random.Random(name)
    for n, hinted in itertools.product((1, 3, 11), (False, True) if template.hint else (False,)):
        shown = made(rng, n)
        shown = dataclasses.replace(shown, responses=[response + " \u3000\n" * 5 for response in shown.responses[:-1]] + ["x"])
        hint, orders = shown.best if hinted else None, [range(n), range(n)[::-1]]
        most = max(len(tokenizer.encode_turns(render(shown, order, template, hint=hint))) for order in orders)
        assert most <= lengths.bound(shown, template, tokenizer, hinted=hinted)


def test_of_our_templates_few_orders_are_tried(tokenizer):
    for name in template_names():
        template = load_template(name)
        assert lengths.dependence(tokenizer, template, template.hint is not None) in ("none", "last")


def test_many_responses_of_an_unknown_template_are_bounded_by_bytes(tokenizer, own):
    template, rng = load_template(own), random.Random(0)
    assert lengths.dependence(tokenizer, template, False) == "any"
    shown = made(rng, 5)
    bound = lengths.longest(shown, template, tokenizer, None, limit=10_000)
    assert max(every_length(tokenizer, template, shown, None)) <= bound


def test_what_is_too_long_by_its_characters_alone_is_not_tokenised(tokenizer):
    prompter = Prompter(PromptConfig(), tokenizer)
    shown = Comparison(conversation=[Turn("user", "q")], responses=["<bos>" * 200_000, "b"], scores=[1, 0])
    prompter._turns = None
    assert prompter.longest(shown, limit=64) > 64
    # White space at the end of a prompt is trimmed, so it is no reason to refuse one.
    padded = dataclasses.replace(shown, responses=("a" + " " * 10**6,), scores=None)
    assert Prompter(PromptConfig(template="short"), tokenizer).longest(padded, limit=200) < 200


def test_a_bound_from_characters_holds_for_every_text(tokenizer):
    for piece in tokenizer._ids:
        text = piece.replace("\u2581", " ") * 7
        assert tokenizer.min_tokens(len(text)) <= len(tokenizer.encode(text))
        assert len(tokenizer.encode_turns([Turn("user", text)])) <= tokenizer.max_tokens(text)
