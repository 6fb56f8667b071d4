import dataclasses
import hashlib

import numpy as np
import pytest

from spct_jax.data.comparison import Comparison, Turn, from_json, to_json
from spct_jax.errors import InputError

USER = {"role": "user", "content": "hi"}


def test_lists_and_dicts_become_tuples_and_turns():
    comparison = Comparison(conversation=[USER], responses=["a", "b"], scores=[1, np.float32(2)])
    assert comparison.conversation == (Turn("user", "hi"),)
    assert (comparison.responses, comparison.scores, comparison.id) == (("a", "b"), (1.0, 2.0), "")
    assert (comparison.n, comparison.query, comparison.best) == (2, "hi", 1)
    assert hash(comparison) == hash(dataclasses.replace(comparison))


def test_model_is_another_name_for_assistant():
    assert Turn("model", "x") == Turn("assistant", "x")


@pytest.mark.parametrize(
    ("scores", "best"), [(None, None), ([1, 2, 0], 1), ([2, 2, 1], None), ([2, 1, 1], 0), ([-3, -2, -5], 1)]
)
def test_best(scores, best):
    assert Comparison(conversation=[USER], responses=["a", "b", "c"], scores=scores).best == best


def test_single_response():
    assert Comparison(conversation=[USER], responses=["a"], scores=[0]).best == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversation": []}, "empty conversation"),
        ({"conversation": "hi"}, "conversation is not a list of turns (str)"),
        ({"conversation": ["hi"]}, "a turn of the conversation is not an object (str)"),
        ({"conversation": [{"role": "user"}]}, "a turn of the conversation has no 'content'"),
        ({"conversation": [{"content": "x"}]}, "a turn of the conversation has no 'role'"),
        (
            {"conversation": [{"role": "robot", "content": "x"}]},
            "unknown role ('robot'; use system, user or assistant)",
        ),
        (
            {"conversation": [{"role": ["user"], "content": "x"}]},
            "unknown role (['user']; use system, user or assistant)",
        ),
        ({"conversation": [{"role": "user", "content": 3}]}, "content of a turn is not a string (int)"),
        (
            {"conversation": [USER, {"role": "model", "content": "x"}]},
            "the last turn of the conversation is not the user's (assistant)",
        ),
        ({"conversation": [{"role": "user", "content": " \n"}]}, "the last turn of the conversation is empty"),
        ({"responses": []}, "no responses"),
        ({"responses": "ab"}, "responses is not a list of strings (str)"),
        ({"responses": ["a", " \n"]}, "empty response (number 2)"),
        ({"responses": ["a", None]}, "response is not a string (number 2 is NoneType)"),
        ({"scores": [1]}, "scores of the wrong length (1 for 2 responses)"),
        ({"scores": 3}, "scores is not a list of numbers (int)"),
        ({"scores": [1, True]}, "score is not a number (bool)"),
        ({"scores": [1, "2"]}, "score is not a number (str)"),
        ({"scores": [1, float("nan")]}, "score is not finite"),
        ({"scores": [1, 10**400]}, "score is not finite"),
        ({"id": 3}, "id is not a string (int)"),
    ],
)
def test_errors(change, message):
    with pytest.raises(InputError) as error:
        Comparison(**{"conversation": [USER], "responses": ["a", "b"], "scores": [1, 2]} | change)
    assert str(error.value) == message


def test_json_round_trip():
    conversation = [{"role": "system", "content": "s"}, USER, {"role": "assistant", "content": ""}, USER]
    for scores in (None, [1, 2.5]):
        comparison = Comparison(conversation=conversation, responses=["a", "b\n"], scores=scores, id="x")
        assert from_json(to_json(comparison), "f:1", 1) == comparison


def test_json_query_and_ids():
    record = {"query": "hi", "responses": ["a", "b"]}
    assert from_json(record, "f:7", 7) == Comparison(conversation=[USER], responses=["a", "b"], id="7")
    assert from_json(record | {"id": 12}, "f:7", 7).id == "12"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "f:3: not a JSON object (list)"),
        ({"responses": ["a"]}, "f:3: missing field 'conversation' (or 'query')"),
        ({"query": "x", "conversation": [USER], "responses": ["a"]}, "f:3: both 'conversation' and 'query' given"),
        ({"query": "x"}, "f:3: missing field 'responses'"),
        ({"query": 1, "responses": ["a"]}, "f:3: query is not a string (int)"),
        ({"query": " ", "responses": ["a"]}, "f:3: empty query"),
        ({"query": "x", "responses": ["a"], "id": True}, "f:3: id is not a string or an integer (bool)"),
        ({"query": "x", "responses": [""]}, "f:3: empty response (number 1)"),
    ],
)
def test_json_errors_name_the_line(record, message):
    with pytest.raises(InputError) as error:
        from_json(record, "f:3", 3)
    assert str(error.value) == message


def test_principles_and_a_reference_answer_are_part_of_the_digest_where_they_are_given():
    """Where they are not, the digest is of id, turns and responses, as it was before there were any."""
    plain = Comparison(conversation=[Turn("user", "q")], responses=["a", "b"], id="x")
    assert plain.digest == hashlib.blake2b(b'["x", [["user", "q"]], ["a", "b"]]', digest_size=8).hexdigest()
    given = [{}, {"principles": "p"}, {"reference": "p"}, {"reference": "q"}, {"principles": "p", "reference": "p"}]
    assert len({dataclasses.replace(plain, **fields).digest for fields in given}) == len(given)
    assert dataclasses.replace(plain, principles="pp", reference="r").characters == plain.characters + 3
    for fields, message in (({"principles": 3}, "principles is not a string"), ({"reference": " "}, "^empty reference$")):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(plain, **fields)
