"""The page on launching shows what dry runs print."""

import re
import shlex

import pytest
from launchers import ROOT, launch

PAGE = (ROOT / "docs" / "launch.md").read_text()
SHOWN = re.findall(r"<!-- dry run -->\n```bash\n(.*?)```\n(?:```\w+\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_the_page_shows_what_a_dry_run_prints(command, output):
    python, script, *arguments = shlex.split(command.replace("\\\n", " "))
    assert python == "python" and "--dry_run" in arguments
    done = launch(script.removeprefix("launch/").removesuffix(".py"), *arguments)
    assert done.returncode == 0, done.stderr
    if output:
        assert done.stdout == output


def test_the_page_shows_each_way():
    assert {re.search(r"launch/(\w+)\.py", command)[1] for command, _ in SHOWN} >= {"gke", "tpu_vm"}
