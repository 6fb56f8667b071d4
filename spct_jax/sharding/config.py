"""Fields of the mesh."""

import dataclasses
from collections.abc import Iterator

from spct_jax.errors import InputError
from spct_jax.field_bounds import bounded, one_of

STRATEGIES = ("data", "fsdp", "tensor", "fsdp_tensor", "multislice")


@dataclasses.dataclass
class MeshConfig:
    """Devices and how arrays are split over them."""

    cpu_devices: int = bounded(2, 1, 4096)
    """Devices that the host's CPU is split into when there is no accelerator; about one per core is fastest."""
    strategy: str = one_of("data", STRATEGIES)
    """How parameters, optimiser state and rows are split over the devices. `data`: rows only. `fsdp`: parameters too, along
    their width. `tensor`: heads, feed-forward and vocabulary. `fsdp_tensor`: both. `multislice`: both in each slice."""
    tensor: int = bounded(1, 1, 1 << 20)
    """Devices that share the heads of a layer; more than 1 for `tensor`, `fsdp_tensor` and `multislice`, and for `fsdp` where
    `rollout` is `tensor`: then they share them while completions are drawn, and updates split their rows over all devices."""
    slices: int = bounded(1, 1, 1 << 20)
    """Slices of the pod, each with a copy of the parameters; more than 1 for `multislice` only."""
    rollout: str = one_of("same", ("same", "tensor"))
    """How parameters are split while completions are drawn: `same`, or `tensor`, replicated except for what `tensor` splits, so
    that no step of decoding gathers them."""
    heartbeat_seconds: int = bounded(100, 1, 1 << 20)
    """A process that is silent for this long is taken for dead, and the other processes end."""

    def conflicts(self, prefix: str) -> Iterator[str]:
        """What is wrong between the fields, a line each; see `field_bounds`."""
        for field, strategies in (("tensor", ("tensor", "fsdp_tensor", "multislice", "fsdp")), ("slices", ("multislice",))):
            value = getattr(self, field)
            if value > 1 and self.strategy not in strategies:
                yield f"{prefix}{field}: {value} does not go with strategy={self.strategy!r}"
        if self.tensor > 1 and self.strategy == "fsdp" and self.rollout != "tensor":
            yield f"{prefix}tensor: {self.tensor} goes with strategy='fsdp' only where rollout is 'tensor'"

    def axis_sizes(self, devices: int) -> tuple[int, int, int]:
        """How many of so many devices are along each axis of the mesh: data, fsdp and tensor.

        Raises:
          InputError: they cannot be arranged so.
        """
        if devices % (self.tensor * self.slices):
            raise InputError(f"{devices} devices cannot be arranged in slices={self.slices} and tensor={self.tensor}")
        if self.strategy == "data":
            return devices, 1, 1
        return self.slices, devices // (self.slices * self.tensor), self.tensor
