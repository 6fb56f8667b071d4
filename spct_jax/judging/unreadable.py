"""Says early that nothing of what a judge draws can be read."""

from spct_jax.judging.options import Options
from spct_jax.runtime import distributed

FIRST_SAMPLES = 64
"""Samples after which a judge says so if none of them could be read."""


class UnreadableWarning:
    """Where nothing can be read in a judge's first samples, says so early, with the likely cause."""

    def __init__(self, options: Options, knows_templates: bool):
        """`knows_templates`: see `Models`."""
        self._options, self._knows_templates = options, knows_templates
        self._seen = self._readable = self._cut = 0

    def count(self, readable: bool, cut: bool) -> None:
        """Counts one sample: whether a verdict could be read in it, and whether it was cut at the limit of its length."""
        if self._seen == FIRST_SAMPLES:
            return
        self._seen, self._readable, self._cut = self._seen + 1, self._readable + readable, self._cut + cut
        if self._seen == FIRST_SAMPLES and not self._readable:
            distributed.say(f"warning: no verdict could be read in the first {FIRST_SAMPLES} samples; {self._cause()}")

    def _cause(self) -> str:
        if 2 * self._cut > self._seen:
            buckets = self._options.buckets
            limit = f"a limit of {buckets[-1][1]} tokens" if buckets else f"max_new_tokens ({self._options.max_new_tokens})"
            return f"{self._cut} of them were cut: {limit} may be too small for this model's critiques"
        if not self._knows_templates:
            return "the checkpoint carries no templates: was it trained with others than the default, or not to judge at all?"
        return "was the model trained to judge with these templates, or is it a base model?"
