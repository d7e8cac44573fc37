"""Sphinx's settings; launch/docs.sh builds the pages."""

import csv
import io
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parents[1]))

from vae_jax import __version__
from vae_jax.config import KEYS

project = "vae_jax"
version = release = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
html_theme_options = {"description": "Finds structure in music without labels."}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings put names in single backticks
napoleon_use_ivar = True  # a dataclass's attributes are described once


class ConfigKeys(SphinxDirective):
    """The table of all config keys."""

    def run(self) -> list[nodes.Node]:
        """Return the table's nodes."""
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        for name, key in KEYS.items():
            writer.writerow([f"``{name}``", f"``{key.default!r}``", key.meaning])
        header = ".. csv-table::\n   :header: key, default, meaning\n\n"
        lines = "".join(f"   {line}\n" for line in rows.getvalue().splitlines())
        return self.parse_text_to_nodes(header + lines)


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("config-keys", ConfigKeys)
