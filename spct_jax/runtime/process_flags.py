"""The flags by which the processes of a command find each other; on a TPU pod they need none of them."""

from absl import flags

from spct_jax.runtime import distributed

flags.disclaim_key_flags()  # those defined here belong to the command, so that its --help shows them


class ProcessFlags:
    """Where the first process of a run is, how many there are, and which of them this is."""

    def __init__(self, values: flags.FlagValues):
        """Defines the flags in a command's own `values`."""
        own = {"flag_values": values}
        self._coordinator = flags.DEFINE_string(
            "coordinator", "", "HOST:PORT of the first of several processes; a TPU pod needs none.", **own
        )
        self._num_processes = flags.DEFINE_integer("num_processes", 1, "How many processes there are.", **own)
        self._process_id = flags.DEFINE_integer("process_id", 0, "Which of them this is, from 0.", **own)

    def join(self, heartbeat_seconds: int = 100) -> None:
        """Joins the other processes, see `distributed.initialize`; must be called before JAX is first used."""
        distributed.initialize(self._coordinator.value, self._num_processes.value, self._process_id.value, heartbeat_seconds)
