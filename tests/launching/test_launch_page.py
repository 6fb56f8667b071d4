"""The page on launching shows what dry runs print, and launchers understand all of its commands."""

import re
import shlex

import pytest
from launchers import ROOT, launch

pytestmark = pytest.mark.xmanager
PAGE = (ROOT / "docs" / "launch.md").read_text()
SHOWN = re.findall(r"<!-- dry run -->\n```bash\n(.*?)```\n(?:```\w+\n(.*?)```)?", PAGE, re.DOTALL)
LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"python launch/(gke|tpu_vm)\.py|xmanager ", line) and "--dry_run" not in line
]


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_the_page_shows_what_a_dry_run_prints(command, output):
    python, script, *arguments = shlex.split(command.replace("\\\n", " "))
    assert python == "python" and "--dry_run" in arguments
    done = launch(script.removeprefix("launch/").removesuffix(".py"), *arguments)
    assert done.returncode == 0, done.stderr
    if output:
        assert done.stdout == output


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_has_a_dry_run(line):
    program, script, *arguments = shlex.split(line)
    if program == "xmanager":
        pytest.importorskip("xmanager", reason="needs xmanager (pip install -e '.[launch]')")
        assert script == "launch" and arguments[1] == "--"
        done = launch(arguments[0].removeprefix("launch/").removesuffix(".py"), *arguments[2:], "--dry_run")
    else:
        done = launch(script.removeprefix("launch/").removesuffix(".py"), *arguments, "--dry_run")
    assert done.returncode == 0 and done.stdout, done.stderr


def test_the_page_shows_each_way():
    shown = " ".join([*(command for command, _ in SHOWN), *LINES])
    assert set(re.findall(r"launch/(\w+)\.py", shown)) >= {"gke", "tpu_vm", "xm_launch"}
