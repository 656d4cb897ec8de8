"""What Sphinx calls while it builds the site."""

from __future__ import annotations

import html
import re
import textwrap
import zlib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

import merging
from docs.website import api, gallery, pictures
from docs.website.links import FIRST, Repository
from docs.website.pages import contents, linked, shown, toctree, unlisted

MADE = {"Reference": ["api/index"], "Results": ["gallery/index"]}
"""Pages that are made here, and the section of docs/index.md that they stand in."""
LAST = "Project"
"""The section of pages that docs/index.md does not list."""
SAYING, SHOWN = 30, 160
"""Characters of a text that says what a page is about, at least, and of what search engines show of it."""
_log = logging.getLogger(__name__)


def make_pages(app: Sphinx) -> None:
    """Writes the pages that are made of the code and of results; one that has not changed is not read again."""
    docs, index = Path(app.srcdir), Path(app.srcdir) / "gallery/index.rst"
    made = api.pages()
    if _is_older(index, docs / "results"):
        made[f"{index.parent.name}/{index.name}"] = gallery.document(docs)
    for name, text in made.items():
        path = docs / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    colours = Path(app.outdir) / "_static/colours.css"
    colours.parent.mkdir(parents=True, exist_ok=True)
    colours.write_text(pictures.colours(), encoding="utf-8")
    app.add_css_file(colours.name)


def make_results(app: Sphinx, error: Exception | None) -> None:
    """Draws the pages of results beside the gallery."""
    if error is not None or app.builder.name != "html":
        return
    for folder in gallery.folders(Path(app.srcdir)):
        path = Path(app.outdir) / "gallery" / gallery.page_name(folder, Path(app.srcdir))
        if _is_older(path, folder):
            path.write_text(gallery.make_page(folder), encoding="utf-8")


def _is_older(path: Path, folder: Path) -> bool:
    """A file that is not there, or older than what it is made of: results in a folder, and code."""
    code = (*Path(merging.__file__).parent.rglob("*.*"), *Path(__file__).parent.glob("*.py"))
    sources = (each.stat().st_mtime for each in (*folder.rglob("*"), *code))
    return not path.exists() or path.stat().st_mtime < max(sources)


def signature(app: Sphinx, kind: str, name: str, found: object, options: object, said: str, returned: str) -> Any:
    """A signature as people write it: defaults that are functions by their names, ``...`` where a default is made."""
    if not said:
        return None
    return re.sub(r"<function (\w+)(?: at 0x[0-9a-f]+)?>", r"\1", said).replace("Ellipsis", "..."), returned


def draw(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """Puts our own pictures into the page itself, so that they follow light and dark."""
    for image in list(doctree.findall(nodes.image)):
        drawn = pictures.of_file(Path(app.srcdir) / image["uri"], image.get("alt", ""))
        if drawn is not None and app.builder.format == "html":
            image.replace_self(nodes.raw("", drawn, format="html"))


def refuse_copies(app: Sphinx, doctree: nodes.document) -> None:
    """Warns of a link to another file that :func:`shown` has not seen: a copy of the file would be put on the site."""
    for node in doctree.findall(addnodes.download_reference):
        _log.warning("a link to %s is spelled in a way that is not followed", node["reftarget"], location=node)


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Makes of a page's text what the site shows, where it is one of the repository's."""
    path = Path(app.env.doc2path(name))
    if path.suffix != ".md":
        return
    repository: Repository = app.config.site_repository
    page, text, below = f"docs/{name}.md", source[0], ""
    if name == "index":
        page = next(iter(FIRST))
        below = "".join(toctree(names, caption) for caption, names in sections(app.srcdir, text).items())
        text = (repository.root / page).read_text(encoding="utf-8")
        app.env.note_dependency(repository.root / page)
    elif name.endswith("/index"):
        below = toctree([each for each in linked(text, page) if each.startswith(name.removesuffix("index"))])
    try:
        source[0] = shown(text, page, repository) + below
    except LookupError as error:
        _log.warning("%s", error, location=name)


def sections(docs: Path, text: str) -> dict[str, list[str]]:
    """The sidebar: what docs/index.md lists, with what is made, and at the end what is listed nowhere."""
    found = contents(text)
    for caption, names in MADE.items():
        found[caption] += names
    found[LAST] += unlisted(docs)
    return found


def sidebar(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Gives furo the list of pages: that of the toctrees, whose pages of a folder are shown only within it.

    Sphinx's own makes all entries of all pages again for each page, which is half of the time of a build.
    """
    env, where = app.env, name if template == "page.html" else "index"

    def entry(page: str, level: int) -> str:
        here = " current" if page == where else ""
        title = html.escape(env.titles[page].astext())
        address = app.builder.get_relative_uri(name, page)
        folder = page.removesuffix("index")
        below = env.toctree_includes.get(page, []) if page.endswith("/index") and where.startswith(folder) else []
        inside = f"<ul>{''.join(entry(each, level + 1) for each in below)}</ul>" if below else ""
        here = here or (" current" if where in below else "")
        link = f'<a class="reference internal{here}" href="{html.escape(address)}">{title}</a>'
        return f'<li class="toctree-l{level}{here}">{link}{inside}</li>'

    text = (app.srcdir / "index.md").read_text(encoding="utf-8")
    made = (
        f'<p class="caption" role="heading"><span class="caption-text">{html.escape(caption)}</span></p>'
        f"<ul>{''.join(entry(page, 1) for page in pages)}</ul>"
        for caption, pages in sections(app.srcdir, text).items()
    )
    context["toctree"] = lambda **_: "".join(made)


def description(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Says in a page's head what it is about, by its first sentences: search engines show them."""
    paragraphs = doctree.findall(nodes.paragraph) if doctree is not None else ()
    texts = (" ".join(paragraph.astext().split()) for paragraph in paragraphs)
    text = next((text for text in texts if len(text) >= SAYING), "")
    if text:
        said = html.escape(textwrap.shorten(text, SHOWN, placeholder=" …"))
        context["metatags"] += f'<meta name="description" content="{said}" />'


def setup(app: Sphinx) -> dict[str, int]:
    """Connects all of it; where this code has changed, every page is read again."""
    app.add_config_value("site_repository", None, "env", Repository)
    app.connect("builder-inited", make_pages)
    app.connect("source-read", read)
    app.connect("autodoc-process-signature", signature)
    app.connect("doctree-read", refuse_copies)
    app.connect("doctree-resolved", draw)
    app.connect("build-finished", make_results)
    app.connect("html-page-context", sidebar, priority=400)  # before furo
    app.connect("html-page-context", description)
    own = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": zlib.crc32(own)}
