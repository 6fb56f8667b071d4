"""How long a test waits for a process: one figure for all, far above what any needs on a busy machine.

It is there so that what hangs ends some day, and measures nothing. Where a test is about speed, it counts the time of its own
process (`time.process_time`), which others on the machine do not add to.
"""

SECONDS = 3600
