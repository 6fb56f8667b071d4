"""Gives hostile checkpoints to the converter and the judge; what they must say is one line, with exit status 2.

    python experiments/studies/abuse_foreign.py --output=docs/results/abuse_foreign.md

Every checkpoint of `hostile_checkpoints` goes through a process of its own, forked after the imports, which may take
2 GiB of address space and 20 seconds of processor time, however busy the machine is.
"""

import argparse
import dataclasses
import os
import pathlib
import resource
import runpy
import shutil
import signal
import sys
import tempfile

import jax
import numpy as np
import orbax.checkpoint as ocp
from hostile_checkpoints import CASES, Spoil

from spct_jax import checkpoints, models
from spct_jax.checkpoints import Model, hugging_face
from spct_jax.data.tokenizer import train_tokenizer
from spct_jax.grm.config import PromptConfig
from spct_jax.models import stack
from spct_jax.storage import files

MEMORY = 2 << 30
SECONDS = 20
LAYOUTS = ("hf", "ours", "google")
FIXTURE = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "gemma2_tiny"


@dataclasses.dataclass
class Outcome:
    """What became of one hostile checkpoint in one command."""

    code: int
    """Exit status; minus the signal that ended it."""
    said: list[str]
    """Lines on standard error, progress bars left out."""
    seconds: float
    """Of processor time."""
    memory: int
    """Peak of resident memory, in bytes."""

    @property
    def refused(self) -> bool:
        """Whether it was refused as it must be."""
        *before, last = self.said or [""]
        # A damaged step is said before it is passed over, whether or not there is another.
        one = last.startswith("error: ") and all(" is damaged (" in line for line in before)
        return self.code == 2 and one and self.seconds < SECONDS and self.memory < MEMORY


def make_layouts(directory: pathlib.Path) -> None:
    """Writes one sound checkpoint of each layout, all of the same few pieces."""
    tokenizer = train_tokenizer(["Alba has wifi, sun.", "Birch has tea."], vocab_size=300)
    source = directory / "hf"
    shutil.copytree(FIXTURE, source, copy_function=shutil.copyfile)
    tokenizer.save(source / "tokenizer.model")
    checkpoints.write_templates(source, PromptConfig())
    params, config, kind = hugging_face.read_weights(source, num_tokens=tokenizer.vocab_size)
    checkpoints.save(directory / "ours", Model(params, config, tokenizer, kind, prompt=PromptConfig()))
    toy = models.get("toy")
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(directory / "google", to_google(models.init(toy, jax.random.key(0)), toy))
    shutil.copy(source / "tokenizer.model", directory / "tokenizer.model")


def to_google(params: dict, config: models.ModelConfig) -> dict:
    """Our parameters as Google's modules name and shape them."""
    tree = {"embedder": params["embedder"], "final_norm": params["final_norm"]}
    for i, block in enumerate(stack.to_layers(config, jax.tree.map(np.asarray, params))):
        q, k, v = (block["attn"][name].transpose(1, 0, 2) for name in ("q", "k", "v"))
        attn = {"attn_vec_einsum": {"w": block["attn"]["out"]}, "q_einsum": {"w": q}, "kv_einsum": {"w": np.stack([k, v])}}
        gating = np.stack([block["mlp"]["gate"], block["mlp"]["up"]])
        norms = {name: block[name] for name in block if name.endswith("norm")}
        tree[f"layer_{i}"] = {
            "attn": attn,
            "mlp": {"gating_einsum": {"w": gating}, "linear": {"w": block["mlp"]["down"]}},
            **norms,
        }
    return {"transformer": jax.tree.map(np.asarray, tree)}


def commands(layout: str, source: pathlib.Path) -> dict[str, list[str]]:
    """What is run on a checkpoint of a layout: by name, the module and its flags."""
    target = f"--to={source.parent}/converted"
    convert = ["spct_jax.convert", f"--from={source}", target, f"--format={'hf' if layout == 'ours' else 'orbax'}"]
    if layout == "google":
        return {"convert": [*convert, "--size=toy", f"--tokenizer={source.parents[1]}/tokenizer.model"]}
    put, out = f"{source.parent}/in.jsonl", f"--output={source.parent}/out.jsonl"
    pathlib.Path(put).write_text('{"id": 1, "query": "q", "responses": ["a", "b"]}\n')
    lengths = ["--k=1", "--max_new_tokens=4", "--max_prompt=124"]
    return {"convert": convert, "judge": ["spct_jax.judge", f"--checkpoint={source}", f"--input={put}", out, *lengths]}


def in_a_process(directory: pathlib.Path, function, *arguments) -> Outcome:
    """Runs a function in a forked process of bounded memory and time."""
    log = directory / "stderr"
    pid = os.fork()
    if not pid:
        code = 1
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 2)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MEMORY,) * 2)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(10 * SECONDS)  # should it wait for something that never comes
            function(*arguments)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    lines = [line.split("\r")[-1] for line in log.read_text(errors="replace").splitlines()]
    said = [line for line in lines if line.strip() and "/s]" not in line]
    return Outcome(os.waitstatus_to_exitcode(status), said, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def run_module(module: str, *arguments: str) -> None:
    """As `python -m module arguments`."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def report(outcomes: dict[tuple[str, str], Outcome], imports: int) -> str:
    """The page in docs/results; `imports` is the resident memory of a process that does nothing."""
    refused = sum(outcome.refused for outcome in outcomes.values())
    names = {name for name, _ in outcomes}
    lines = [
        "# Hostile checkpoints",
        "",
        f"{len(names)} checkpoints, each wrong in one thing, given to `convert` and, in the layouts that it reads, to `judge`:",
        f"{refused} of {len(outcomes)} runs ended as they must, with exit status 2 and one line, without a traceback, below",
        f"{MEMORY >> 30} GiB of memory and {SECONDS} s of processor time.",
        f"At most they took {max(o.memory for o in outcomes.values()) / 1e6:.0f} MB, of which {imports / 1e6:.0f} MB are the",
        f"imports, and {max(o.seconds for o in outcomes.values()):.1f} s.",
        "",
        "```console",
        "$ python experiments/studies/abuse_foreign.py --output=docs/results/abuse_foreign.md",
        "```",
        "",
        "| checkpoint | command | status | MB | s | said |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (name, command), o in outcomes.items():
        said = " / ".join(o.said)[-160:].replace("|", "\\|") if o.said else ""
        mark = "" if o.refused else "**not refused** "
        lines.append(f"| {name} | {command} | {mark}{o.code} | {o.memory / 1e6:.0f} | {o.seconds:.1f} | {said} |")
    return "\n".join(lines) + "\n"


def run_case(root: pathlib.Path, case: str, spoil: Spoil) -> dict[tuple[str, str], Outcome]:
    """The outcomes of one hostile checkpoint by (its name, the command)."""
    outcomes, layout = {}, case.partition(":")[0]
    for command in ("convert", "judge") if layout != "google" else ("convert",):
        outcome = in_a_process(root, run_module, *fresh(root, layout, spoil)[command])
        outcome.said = [line.replace(f"{root}/case/", "").replace(f"{root}/", "") for line in outcome.said]
        outcomes[case, command] = outcome
        print(f"{'' if outcome.refused else 'NOT REFUSED '}{case} [{command}] {outcome.code} {outcome.said[-1:]}", flush=True)
    return outcomes


def main() -> None:
    """Runs all cases and writes the table; exits with 1 if one was not refused."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="", help="file to write the table to; default: standard output")
    parser.add_argument("--only", default="", help="only cases whose name has this in it")
    chosen = parser.parse_args()
    outcomes: dict[tuple[str, str], Outcome] = {}
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        made = in_a_process(root, make_layouts, root)
        if made.code:
            raise RuntimeError("\n".join([f"to make the sound checkpoints ended with {made.code}", *made.said]))
        imports = in_a_process(root, lambda: None).memory
        for layout in LAYOUTS:
            sound = in_a_process(root, run_module, *fresh(root, layout, lambda directory: None)["convert"])
            if sound.code:
                raise RuntimeError(f"the sound checkpoint of {layout}: " + "\n".join(sound.said))
        for case, spoil in CASES.items():
            if chosen.only in case:
                outcomes |= run_case(root, case, spoil)
    page = report(outcomes, imports)
    print(page)
    if chosen.output:
        files.write(chosen.output, page)
    sys.exit(any(not outcome.refused for outcome in outcomes.values()))


def fresh(root: pathlib.Path, layout: str, spoil: Spoil) -> dict[str, list[str]]:
    """Makes a checkpoint, spoils it, and returns the commands to run on it."""
    shutil.rmtree(root / "case", ignore_errors=True)
    shutil.copytree(root / layout, root / "case" / layout)
    spoil(root / "case" / layout)
    return commands(layout, root / "case" / layout)


if __name__ == "__main__":
    main()
