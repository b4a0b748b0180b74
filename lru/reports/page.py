"""A page in HTML that needs nothing beside itself, from a text in Markdown and its pictures."""

import base64
import html
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt

_TEMPLATE = Path(__file__).with_name("page.html")


def page(text: str, title: str, folder: Path) -> str:
    """Render a text as a page with its pictures inside.

    Args:
        text: in Markdown; tags of HTML in it are shown, not used.
        title: of the window.
        folder: the pictures, PNG, that the text names.
    """
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        for part in token.children or []:
            if part.type == "image":
                content = (folder / str(part.attrs["src"])).read_bytes()
                part.attrs["src"] = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    body = markdown.renderer.render(tokens, markdown.options, {})
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body=body)


def code(text: str) -> str:
    """A name as Markdown shows it letter by letter."""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def table(header: list[str], rows: list[list[str]], numbers: set[str] | None = None) -> str:
    """A table in Markdown.

    Args:
        header: names of the columns.
        rows: cells, in Markdown.
        numbers: columns that are flush right.
    """
    rule = ["---:" if name in (numbers or ()) else "---" for name in header]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *cells))
