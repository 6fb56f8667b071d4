"""Fields of the text contract."""

import dataclasses


@dataclasses.dataclass
class PromptConfig:
    """The text contract: names in `grm/templates` or paths of files in the same format; the short ones unless said otherwise.

    In a `Config` an empty name stands for the template that `init_checkpoint` carries, or for the short one.
    """

    template: str = "short"
    single_template: str = "short_single"
    """For comparisons with one response and a 0/1 truth."""
    meta_template: str = "short_meta"
    choice_template: str = "short_judge"
    """For an LLM judge, which names the best response instead of scoring all of them."""


DEFAULT_PROMPT = PromptConfig("default", "single", "meta", "judge")
"""The long ones: of the paper's settings, and of a checkpoint that carries none."""
