"""What the tests of pages share: a hostile text, and the words of a page."""

import re
from html import unescape

from IPython.display import HTML

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too'"


def text(html: HTML | str) -> str:
    """The words of a page, without marks and styles."""
    markup = html.data if isinstance(html, HTML) else html
    words = re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", markup, flags=re.DOTALL))
    return " ".join(unescape(words).split())
