"""Greedy decoding of many texts at once, for the writer of reports and for the judge."""

from .decoder import MOST_ROWS, Decoder
from .drafts import Drafts
from .rows import Request

__all__ = ["MOST_ROWS", "Decoder", "Drafts", "Request"]
