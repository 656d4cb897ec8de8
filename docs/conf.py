"""Sphinx's settings: the site is docs/ as it stands in the repository; see ``docs/website`` for what is made of it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import merging  # noqa: E402
from docs.website.links import Repository  # noqa: E402

REPOSITORY = site_repository = Repository.of(ROOT)

project = "merging"
author = "the authors of merging"
copyright = "the authors of merging; Apache-2.0"
release = version = merging.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docs.website.extension"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["website"]

# Pages are read as the repository's site reads them: nothing of MyST's own, which could take a line for a comment.
myst_enable_extensions = ["linkify", "strikethrough", "html_image"]
myst_disable_syntax = ["myst_line_comment", "myst_block_break", "myst_target", "myst_role"]
myst_linkify_fuzzy_links = False
myst_heading_anchors = 4
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Keywords", "params_style")]  # merging.plugins.keywords writes it

html_theme = "furo"
html_title = f"merging {release}"
html_favicon = "website/static/icon.svg"
html_static_path = ["website/static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "footer_icons": [{"name": "Repository", "url": REPOSITORY.address, "html": "Repository", "class": "repository"}],
}

# `make docs-links` asks for every address; the repository's is not known before the first release.
linkcheck_ignore = [REPOSITORY.address] if "/OWNER/" in REPOSITORY.address else []
linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_retries = 2
