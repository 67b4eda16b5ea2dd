"""Odd inputs to all that reads what others wrote: logs, settings, run folders, model folders, server answers.

``python -m fuzz --seed 0 --minutes 2`` makes small valid inputs, damages them, and hands them over. An input may work
or raise a `RecloopError`. Everything else is a failure: another exception, more than 10 seconds of processor time or
40 of the clock, more than 1 GB, a write outside the case's own folder, a process or a connection, or a value that is
not what the input says.
"""

import os
import sys

# Before polars, torch and the Hugging Face libraries are imported by any part of it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.dont_write_bytecode = True
