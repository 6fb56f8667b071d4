"""Files that grow line by line."""

from spct_jax import files


def test_appended_lines_go_on_after_the_last_whole_one(tmp_path):
    path = tmp_path / "x.jsonl"
    with files.Appended(path) as file:
        assert file.lines == 0
        file.write({"a": 1})
        file.write({"b": 2})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with files.Appended(path) as file:
            assert file.lines == whole[:cut].count(b"\n")
            for record in [{"a": 1}, {"b": 2}][file.lines :]:
                file.write(record)
        assert path.read_bytes() == whole
