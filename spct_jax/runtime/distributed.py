"""Several processes as one run: how they find each other, agree, and end together.

Every process runs the same program on the same records and computes with its own devices. What the outside world decides
(which files exist, the clock, a signal) is read by the first process, or by any of them, and holds for all. The first process
writes files; all of them together write checkpoints.
"""

import glob
import importlib.util
import logging
import os
import pickle
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spct_jax import errors, interrupts
from spct_jax.errors import InputError

PREEMPTED = errors.STOPPED
"""Exit status of a run that was told to stop and can be continued."""

_ADDRESS = re.compile(r"(?:[^\s:\[\]]+|\[[^\s\[\]]+\]):([0-9]{1,5})")
"""HOST:PORT; the numbers of an IPv6 host stand in brackets."""

REHEARSED = "SPCT_JAX_CLUSTER"
"""Environment variable that names JAX's way to find the other processes, `gketpu` or `gcetpu`; see `launching.rehearsal`."""

PODS_SECONDS = 3600
"""How long a pod of GKE waits for the others. Nodes of a slice that was lost may be long in coming, and after the five minutes
that JAX waits by itself each try would count as a failure, so that a run would be given up for want of nodes."""


class StoppedError(Exception):
    """SIGTERM or SIGINT came; everything done so far is on disk."""


class StoppedAnywhereError(BaseException):
    """SIGTERM came to a command whose files are whole at any moment; no Exception, so that nothing it falls into takes it for
    a fault of its own, such as damage to the checkpoint that is just read.
    """


def initialize(coordinator: str = "", num_processes: int = 1, process_id: int = 0, heartbeat_seconds: int = 100) -> None:
    """Joins the processes of a run; must be called before JAX is first used. Does nothing if there is only one process.

    The processes of TPU slices find each other; others must be told where the first one is. On a machine without chips,
    `REHEARSED` has them look for each other as on TPUs.

    Args:
      coordinator: HOST:PORT of the first process, the same for all.
      num_processes: how many there are.
      process_id: which of them this is, from 0.
      heartbeat_seconds: after this long without a sign of a process, all others end with an error.

    Raises:
      InputError: the first three arguments contradict each other, or the first is no address.
      ConnectionError: nobody can listen or answer at that address.
    """
    if not coordinator and (num_processes, process_id) != (1, 0):
        raise InputError("--num_processes and --process_id need --coordinator=HOST:PORT")
    if not 0 <= process_id < num_processes:
        raise InputError(f"--process_id={process_id}: not one of {num_processes} processes")
    if coordinator and not ((found := _ADDRESS.fullmatch(coordinator)) and 1 <= int(found[1]) <= 65535):
        raise InputError(f"--coordinator={coordinator}: expected HOST:PORT, such as localhost:8476")
    patience = {"heartbeat_timeout_seconds": heartbeat_seconds, "shutdown_timeout_seconds": 3 * heartbeat_seconds}
    if coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        try:
            jax.distributed.initialize(coordinator, num_processes, process_id, **patience)
        except jax.errors.JaxRuntimeError as error:  # the port is in use, or the first process is not there
            raise ConnectionError(f"--coordinator={coordinator}: {errors.one_line(error)}") from error
    elif method := os.environ.get(REHEARSED):
        # JAX reports that this is no TPU, and then does as it is told.
        logging.getLogger("jax._src.clusters.cluster").setLevel(logging.CRITICAL)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        _meet(cluster_detection_method=method, **patience)
    elif _has_tpu():
        try:
            _meet(**patience)
        except ValueError as error:
            # The machine has chips but belongs to no cluster that JAX knows (a notebook's, say): this process is the only one.
            if "coordinator_address" not in str(error):
                raise


def _meet(**options: Any) -> None:
    """Joins the processes that JAX finds; a metadata server that does not answer is no fault of the user's."""
    if any(name in os.environ for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")):  # by which JAX knows GKE, too
        options["initialization_timeout"] = PODS_SECONDS
    try:
        jax.distributed.initialize(**options)
    except OSError as error:
        raise ConnectionError(f"the other processes cannot be found: {errors.one_line(error)}") from error


def _has_tpu() -> bool:
    """Whether JAX will run on TPU chips of this machine."""
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    wanted = os.environ.get("JAX_PLATFORMS") or "tpu"
    return bool(chips) and "tpu" in wanted and importlib.util.find_spec("libtpu") is not None


def devices(local: bool = False) -> list[jax.Device]:
    """All devices that JAX sees, or this process's own; this is where JAX is first used.

    Raises:
      InputError: there are none, for example because JAX_PLATFORMS names another platform.
    """
    try:
        return jax.local_devices() if local else jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX fails by an assertion if the platform's plugin is missing
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(f"JAX finds no devices (JAX_PLATFORMS={wanted}): {errors.one_line(error)}") from None


def several() -> bool:
    """Whether there are other processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes files, logs and progress."""
    return not several() or jax.process_index() == 0


def process_index_and_count() -> tuple[int, int]:
    """(index of this process, number of processes)."""
    return (jax.process_index(), jax.process_count()) if several() else (0, 1)


def say(line: str) -> None:
    """Writes a line to standard error, above a progress bar if there is one, on the first process."""
    if is_first():
        tqdm.tqdm.write(line, file=sys.stderr)


def barrier(name: str) -> None:
    """Waits for all processes; what the first one wrote before it, the others can read after it."""
    if several():
        multihost_utils.sync_global_devices(name)


def agree(value: int) -> int:
    """The first process's value."""
    return int(multihost_utils.broadcast_one_to_all(np.int64(value))) if several() else value


def any_process(value: bool) -> bool:
    """Whether `value` is true on any process."""
    return begin_any(value)()


def begin_any(value: bool) -> Callable[[], bool]:
    """Begins to find out whether `value` is true on any process, without waiting; the function returned waits, and says it.

    Devices of several processes find it out behind what they were given to compute before.
    """
    if not several():
        return lambda: value
    answer = _any(value)
    return lambda: bool(answer)


def _any(value: bool) -> jax.Array:
    """As of `any_process`, 0 or 1, still being computed."""
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    # Integers, which every backend can take the largest of.
    flags = jax.make_array_from_callback(
        (mesh.size,), NamedSharding(mesh, PartitionSpec("devices")), lambda _: np.array([value], np.int32)
    )
    return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))(flags)


def gather(value: Any) -> list[Any]:
    """The values of all processes in order, on all of them; a value is anything that can be pickled."""
    if not several():
        return [value]
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.int64(mine.size))
    # A power of two, so that few programs are compiled.
    padded = np.zeros(1 << int(sizes.max() - 1).bit_length(), np.uint8)
    padded[: mine.size] = mine
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def from_first(function: Callable[[], Any]) -> Any:
    """What a function returns that only the first process calls; an InputError of its is raised on all of them."""
    if not several():
        return function()
    barrier("what one process does")  # Gloo waits 30 s for all to come together, and after that as long as it takes
    value, error = None, None
    if is_first():
        try:
            value = function()
        except InputError as refused:
            error = refused
    value, error = gather((value, error))[0]
    if error is not None:
        raise error
    return value


def fetch(tree: Any) -> Any:
    """Arrays that may be split over all processes, as complete NumPy arrays on every process."""

    def one(x):
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return np.asarray(x)

    return jax.tree.map(one, jax.device_get(tree) if not several() else tree)


def put(tree: Any, shardings: Any) -> Any:
    """Arrays on the devices of all processes; each process copies only its own devices' shards, and only those are read."""
    if not several():
        return jax.device_put(tree, shardings)

    def one(x, where):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(x), where))
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, where, lambda part: x[part])

    return jax.tree.map(one, tree, shardings)


class Preemption:
    """Notes a SIGTERM or SIGINT, so that a stage can stop at a point where nothing is lost."""

    def __init__(self):
        self._asked = False

    def listen(self) -> None:
        """From now on the first of these signals is only noted; a second one ends the process, but for an echo of a SIGTERM."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, *_) -> None:
        self._asked = True
        interrupts.end_on_another()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def look(self, *, alone: bool = False) -> Callable[[], bool]:
        """`begin_any` of whether this process was told to stop; a single one says what it knows when the function is called.

        All processes must look at the same point of the program, but for those that work `alone`: such a one asks no other.
        """
        return begin_any(self._asked) if several() and not alone else lambda: self._asked

    def asked(self) -> bool:
        """Whether any process was told to stop; all processes must ask at the same point of the program."""
        return self.look()()

    def check(self) -> None:
        """Raises StoppedError if any process was told to stop."""
        if self.asked():
            raise StoppedError


PREEMPTION = Preemption()


def stop_at_once() -> None:
    """From now on a SIGTERM raises StoppedAnywhereError: for commands whose files are whole at any moment."""

    def stop(*_):
        interrupts.end_on_another()
        raise StoppedAnywhereError

    signal.signal(signal.SIGTERM, stop)


def end_together(main: Callable[[], None]) -> None:
    """Runs `main`; if there are several processes, an error in one ends that process at once, so that the others notice.

    In a normal exit it would wait for the others to disconnect, while they wait for its part of a sum.
    """
    try:
        main()
    except (StoppedError, StoppedAnywhereError):
        print("stopped by a signal; the same command goes on from here", file=sys.stderr, flush=True)
        _leave(PREEMPTED)
    except (Exception, SystemExit) as error:
        # Not by how many there are, which JAX tells only when all have come together, and another may have left.
        if not jax.distributed.is_initialized():
            raise
        line, status = errors.describe(error) or (None, errors.FAILED)
        if line is None:
            traceback.print_exc()
        else:
            print(f"error: {line}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(status)


def _leave(status: int) -> None:
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
