"""Entities of HTML, which taggers, exports and lyrics sites leave in texts."""

import html
import re

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,30});")


def unescape(text: str) -> str:
    """Replace entities by what they stand for, also those that were escaped twice.

    An `&` without a semicolon is one, as in "R&B": `html.unescape` would find more.
    """
    for _ in range(2):
        if "&" in text:
            text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return text
