"""What every page is made with: templates in which all text is escaped, and pictures inside the page."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from blindspot.reporting.text import points, signed


def render(template: str, **values: Any) -> str:
    """A template of this folder as HTML. Everything that came from a model, a question or a study is escaped."""
    # For every extension: the templates end in .j2.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"points": points, "signed": signed, "tied": _tied}
    return environment.get_template(template).render(**values)


def data_uri(content: bytes, kind: str) -> str:
    """An image as a URI that needs no other file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _tied(text: str) -> str:
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
