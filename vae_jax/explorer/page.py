"""Makes the page: one HTML file of the modules and styles in `page/` and a run's data.

Nothing is fetched, and the page's own policy forbids it: only the one script and the one style
whose hashes it names are run.
"""

import base64
import hashlib
import html
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

from vae_jax.explorer import packing
from vae_jax.explorer.packing import Page
from vae_jax.storage import files

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|const|class) (\w+))", re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Explorer:
    """A page that is written.

    Attributes
    ----------
    path
        The HTML file.
    """

    path: Path

    def _repr_html_(self) -> str:
        """Return the page as a notebook displays it: in a frame of its own, without our powers."""
        content = html.escape(self.path.read_text(encoding="utf-8"))
        frame = 'width="100%" height="720" sandbox="allow-scripts allow-downloads"'
        return f'<iframe title="vae_jax explorer" {frame} srcdoc="{content}"></iframe>'


def write(path: str | os.PathLike, page: Page) -> int:
    """Write a page to a file; return its size in bytes."""
    content = render(page).encode()
    with files.atomic_write(path) as file:
        file.write(content)
    return len(content)


def render(page: Page) -> str:
    """Return the page's HTML."""
    parts = {
        "policy": rendered_policy(page.asks),
        "style": _style(),
        "script": bundle("main"),
        "title": html.escape(str(page.text["title"])),
        "data": "" if page.asks else packing.encode(page.text, page.arrays),
    }
    return _PLACE.sub(lambda found: parts[found[1]], _read("index.html"))


def rendered_policy(asks: bool) -> str:
    """Return the policy of every page that `render` makes, or of those that ask their server."""
    return policy(bundle("main"), _style(), asks)


def policy(script: str, style: str, asks: bool = False) -> str:
    """Return the Content-Security-Policy that lets this script and this style run, and play."""
    return "; ".join(
        [
            "default-src 'none'",
            *(["connect-src 'self'"] if asks else []),
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "img-src data:",  # the icon, which is empty
            "media-src 'self' file: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def bundle(entry: str) -> str:
    """Return a module and all that it imports as one script.

    Each module becomes a function that returns what it exports, those that others import first, so
    that names of different modules do not meet.
    """
    sources: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in sources:
            source = _read(f"{name}.js")
            for _, imported in _IMPORT.findall(source):
                add(imported)
            sources[name] = source

    add(entry)
    return "\n" + "".join(_wrapped(name, source) for name, source in sources.items())


def _wrapped(name: str, source: str) -> str:
    exported = ", ".join(found[1] for found in _EXPORT.findall(source))
    body = _IMPORT.sub(lambda found: f"const {{{found[1]}}} = ${found[2]};\n", source)
    body = _EXPORT.sub(r"\1", body)
    return f'const ${name} = (() => {{\n"use strict";\n{body}return {{ {exported} }};\n}})();\n'


def _style() -> str:
    return "".join(_read(name) for name in _names(".css"))


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _names(suffix: str) -> Iterable[str]:
    names = (entry.name for entry in (resources("vae_jax.explorer") / "page").iterdir())
    return sorted(name for name in names if Path(name).suffix == suffix)


def _read(name: str) -> str:
    return (resources("vae_jax.explorer") / "page" / name).read_text(encoding="utf-8")
