"""Several processes of one run, played by threads of this one: each is told by `distributed` which of them it is."""

import collections
import threading

from spct_jax.runtime import distributed

SECONDS = 30
"""How long a process waits for the others."""


def run(monkeypatch, count, process):
    """Calls `process(index)` in `count` threads; what each returned, or the exception that ended it."""
    mine, meeting = threading.local(), threading.Condition()
    ended, rounds = [None] * count, collections.defaultdict(dict)

    def gather(value):
        mine.round += 1
        with meeting:
            there = rounds[mine.round]
            there[mine.index] = value
            meeting.notify_all()
            meeting.wait_for(lambda: len(there) == count or any(isinstance(end, BaseException) for end in ended), SECONDS)
            if len(there) < count:
                raise RuntimeError("another process has ended")
            return [there[index] for index in range(count)]

    def live(index):
        mine.index, mine.round = index, 0
        try:
            end = process(index)
        except BaseException as error:
            end = error
        with meeting:
            ended[index] = end
            meeting.notify_all()

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "several", lambda: True)
        patch.setattr(distributed, "is_first", lambda: mine.index == 0)
        patch.setattr(distributed, "process_index_and_count", lambda: (mine.index, count))
        patch.setattr(distributed, "gather", gather)
        patch.setattr(distributed, "barrier", gather)
        threads = [threading.Thread(target=live, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return ended
