"""The host memory that loading a model takes: `python peak_memory.py KIND=FOLDER...` prints bytes by kind.

The kind `merge` merges the adapter in FOLDER into the model that it was taught on, into a folder beside it.

Each folder is loaded in a child process, which this one watches: a thread of the child would miss what
happens while another holds the interpreter's lock. Only anonymous memory counts: the pages of a mapped
file belong to the page cache, and the system takes them back when it needs them.
"""

import json
import os
import sys
import time
from pathlib import Path

import transformers
from process_memory import anonymous_bytes
from transformers import modeling_utils

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.judge.green import GreenEngine
from utils.models.anywhere import merge
from utils.models.loading import load_model

SECONDS = 0.001  # between two looks
SHARD = 15 * 10**6  # bytes in a file of weights


def load(kind: str, folder: str) -> None:
    """Load the model in `folder` as the project loads its `judge` or a base model.

    The kind `read whole` is the counter-check: transformers reads the shards into memory first, as on a
    file system from which it maps no files.
    """
    if kind == "read whole":
        modeling_utils._is_on_hf_mount = lambda _: True
    if kind == "judge":
        GreenEngine(folder, "nf4").load()
    elif kind == "merge":
        merge(Path(folder), Path(folder).with_name("merged"), SHARD)
    else:
        load_model(folder)


def peak(kind: str, folder: str) -> int:
    """The most anonymous memory while the model is loaded, above what there was before."""
    before = most = anonymous_bytes(os.getpid())
    child = os.fork()
    if not child:
        load(kind, folder)
        os._exit(0)
    ended = 0
    while not ended:
        most = max(most, anonymous_bytes(child))
        time.sleep(SECONDS)
        ended, status = os.waitpid(child, os.WNOHANG)
    if status:
        raise RuntimeError(f"loading {kind} failed")
    return most - before


if __name__ == "__main__":
    # Imported here, not in the children, where they would count.
    _ = transformers.LlamaForCausalLM, transformers.LlavaNextForConditionalGeneration
    print(json.dumps({kind: peak(kind, folder) for kind, folder in (one.split("=") for one in sys.argv[1:])}))
