"""Greedy decoding of many texts at once, for the writer of reports and for the judge.

`decoder`: full batches, and drafts that change no word
`rows`: how texts enter, go on by a pass, and leave; their keys and values are in `slots`
`drafts`: what a text will go on with, guessed from the texts before it
"""

from .decoder import MOST_ROWS, Decoder
from .drafts import Drafts
from .rows import Request

__all__ = ["MOST_ROWS", "Decoder", "Drafts", "Request"]
