"""Greedy decoding of many texts at once, for the writer of reports and for the judge.

`decoder`: full batches, and drafts that change no word; keys and values are in `slots`
`rows`: a text that is asked for, and what is written of it
`drafts`: what a text will go on with, guessed from the texts before it
"""

from .decoder import MOST_ROWS, Decoder
from .drafts import Drafts
from .rows import Request

__all__ = ["MOST_ROWS", "Decoder", "Drafts", "Request"]
