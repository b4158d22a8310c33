"""Chest X-ray findings by region: the package under the four notebooks."""

import logging
import os

# Advice of these libraries that a reader of a notebook can do nothing about; errors are still raised.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
