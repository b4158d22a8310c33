"""Chest X-ray findings by region: the package under the four notebooks."""

import logging
import os
import warnings

# Advice of these libraries that a reader of a notebook can do nothing about; errors are still raised.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# New names for arguments that Colab's version does not know yet.
warnings.filterwarnings("ignore", message=".*deprecated and will be removed in v6", category=FutureWarning)
