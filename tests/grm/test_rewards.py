import pytest

from spct_jax.errors import InputError
from spct_jax.grm.rewards import is_correct, load, reward


@pytest.mark.parametrize(
    ("scores", "truth", "correct"),
    [
        ((8, 3), (1, 0), True),
        ((3, 8), (1, 0), False),
        ((8, 8), (1, 0), False),
        ((2, 9, 2, 1), (4, 10, 6, 8), True),
        ((2, 9, 9, 1), (4, 10, 6, 8), False),
        (None, (1, 0), False),
        ((1,), (1,), True),
        ((1,), (0,), False),
        ((0,), (0,), True),
        (None, (1,), False),
    ],
)
def test_eq_10_and_11(scores, truth, correct):
    assert is_correct(scores, truth) is correct
    assert reward(scores, list(truth)) == (1.0 if correct else -1.0)


def test_errors():
    with pytest.raises(InputError, match="no unique best response"):
        reward(None, (1, 1, 0))
    with pytest.raises(ValueError, match="3 scores for 2 responses"):
        reward((1, 2, 3), (0, 1))


OWN = """def margin(scores, truth, text):
    if scores is None:
        return -2
    return scores[truth.index(max(truth))] - max(s for s, t in zip(scores, truth) if t < max(truth)) - len(text) / 100


def nothing(scores, truth, text):
    return 0 if scores is None or scores[0] > scores[1] else float("nan")


def silent(scores, truth, text):
    pass


def two(scores, truth):
    return 1


WORD = "margin"
"""


def test_a_reward_of_ones_own(tmp_path):
    assert load("") is reward and reward((3, 1), (1, 0), "whatever") == 1.0
    file = tmp_path / "own.py"
    file.write_text(OWN)
    margin = load(f"{file}:margin")
    assert [margin((9, 4), (0, 1), "x" * 50), margin(None, (0, 1), "")] == [-5.5, -2.0]
    with pytest.raises(InputError, match=rf"^{file}:4: TypeError: 'int' object is not subscriptable"):
        margin(7, (0, 1), "")
    with pytest.raises(InputError, match=rf"^{file}: nothing returned nan for scores \(1, 2\), true scores \(1\.0, 0\.0\); a"):
        load(f"{file}:nothing")
    with pytest.raises(InputError, match=rf"^{file}: silent returned None for scores None, true scores"):
        load(f"{file}:silent")
    with pytest.raises(InputError, match=rf"^{file}: TypeError: two\(\) takes 2 positional arguments but 3 were given"):
        load(f"{file}:two")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("own.py", "expected FILE.py:FUNCTION"),
        (":margin", "expected FILE.py:FUNCTION"),
        ("own.py:", "expected FILE.py:FUNCTION"),
        ("none.py:margin", "none.py: no such file"),
        ("own.py:other", "own.py has no function other"),
        ("own.py:WORD", "own.py has no function WORD"),
        ("broken.py:f", "broken.py:2: '(' was never closed"),
        ("fails.py:f", "fails.py:1: ZeroDivisionError: division by zero"),
    ],
)
def test_a_reward_that_cannot_be_loaded(named, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"own.py": OWN, "broken.py": "\nf = (\n", "fails.py": "1 / 0\n"}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        load(named)
    assert str(error.value).endswith(message)
