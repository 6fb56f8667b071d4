"""A judge of which nothing can be read says so early, with the likely cause, not only in the summary hours later."""

import sys

import tqdm

from spct_jax import distributed
from spct_jax.judging.options import Options

FIRST = 64
"""Samples after which a judge of which none could be read says so."""


class Watch:
    """Counts the first samples of a stream."""

    def __init__(self, options: Options, carries_templates: bool):
        """`carries_templates`: whether the templates are those that the checkpoint carries, or were asked for."""
        self.options, self.carries_templates = options, carries_templates
        self.seen = self.read = self.cut = 0

    def count(self, read: bool, cut: bool) -> None:
        """Counts one sample: whether a verdict could be read in it, and whether it was cut at the limit of its length."""
        if self.seen == FIRST:
            return
        self.seen, self.read, self.cut = self.seen + 1, self.read + read, self.cut + cut
        if self.seen == FIRST and not self.read and distributed.is_first():
            tqdm.tqdm.write(f"warning: no verdict could be read in the first {FIRST} samples; {self._cause()}", file=sys.stderr)

    def _cause(self) -> str:
        if 2 * self.cut > self.seen:
            limit = self.options.max_new_tokens
            return f"{self.cut} of them were cut: max_new_tokens ({limit}) may be too small for this model's critiques"
        if not self.carries_templates:
            return "the checkpoint carries no templates: was it trained with others than the default, or not to judge at all?"
        return "was the model trained to judge with these templates, or is it a base model?"
