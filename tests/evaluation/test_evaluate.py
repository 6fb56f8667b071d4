"""The stage that judges held-out problems: what a killed run has left."""

from spct_jax.evaluation import evaluate


def test_a_kill_in_the_midst_of_a_move_leaves_nothing_behind(tmp_path):
    """In a bucket a move is a copy, and then a removal."""
    for name in ("rl_greedy.jsonl", "rl_greedy.partial.jsonl"):
        (tmp_path / name).write_text("{}\n")
    one = evaluate.Pass("rl_greedy", "rl", 1, 0.0, guided=False)
    assert list(evaluate._run_pass(None, tmp_path, [], one, None)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["rl_greedy.jsonl"]
