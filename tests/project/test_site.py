"""The site is docs/ as it stands: links, contents, public names and results; the build itself is ``make docs``."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import pytest

import merging
from docs.website import api, checking, gallery
from docs.website.links import Repository, site_link
from docs.website.pages import contents, linked, shown, unlisted

ROOT = Path(__file__).parents[2]
HERE = Repository(ROOT, "https://example.org/us/merging", "v2")
BLOB, TREE = f"{HERE.address}/blob/v2", f"{HERE.address}/tree/v2"


@pytest.mark.parametrize(
    ("page", "link", "leads"),
    [
        ("docs/data.md", "files.md", "files.md"),
        ("docs/data.md", "files.md#in-memory", "files.md#in-memory"),
        ("docs/data.md", "#forms", "#forms"),
        ("docs/data.md", "https://arxiv.org/abs/2203.05482", "https://arxiv.org/abs/2203.05482"),
        ("docs/data.md", "mailto:us@example.org", "mailto:us@example.org"),
        ("docs/data.md", "../CONTRIBUTING.md#tests", f"{BLOB}/CONTRIBUTING.md#tests"),
        ("docs/data.md", "../README.md", "index.md"),
        ("docs/data.md", "../examples/merging-sinks/", f"{TREE}/examples/merging-sinks"),
        ("docs/data.md", "../merging/data/form.py", f"{BLOB}/merging/data/form.py"),
        ("docs/performance.md", "pixels.json", f"{BLOB}/docs/pixels.json"),
        ("docs/results/soups.md", "soups/", f"{TREE}/docs/results/soups"),
        ("docs/results/soups.md", "../finetune.md", "../finetune.md"),
        ("docs/reference/index.md", "strategy/ties.md", "strategy/ties.md"),
        ("docs/reference/strategy/ties.md", "../../concepts.md#names", "../../concepts.md#names"),
        ("README.md", "docs/results/soups.md", "results/soups.md"),
        ("README.md", "docs/benchmark.md#the-page", "benchmark.md#the-page"),
        ("README.md", "CONTRIBUTING.md", f"{BLOB}/CONTRIBUTING.md"),
        ("README.md", "examples", f"{TREE}/examples"),
        ("README.md", "docs/index.md", "index.md"),
        ("README.md", ".", TREE),
        ("docs/results/soups.md", "../../", TREE),
        ("docs/data.md", "HTTPS://example.org/a", "HTTPS://example.org/a"),
        ("docs/data.md", "//example.org/a", "//example.org/a"),
    ],
)
def test_a_link_stays_or_leads_to_the_repository(page: str, link: str, leads: str) -> None:
    assert site_link(link, page, HERE) == leads


def test_a_picture_is_shown_from_where_the_page_is() -> None:
    assert site_link("docs/images/page-dark.png", "README.md", HERE, picture=True) == "images/page-dark.png"
    assert site_link("pacs/forest-0.svg", "docs/results/pacs.md", HERE, picture=True) == "pacs/forest-0.svg"
    assert site_link("pacs/forest-0.svg", "docs/results/pacs.md", HERE) == f"{BLOB}/docs/results/pacs/forest-0.svg"


@pytest.mark.parametrize("link", ["nowhere.md", "../../outside", "../merging/gone.py"])
def test_a_link_to_nothing_is_said(link: str) -> None:
    with pytest.raises(LookupError, match=re.escape(f"docs/data.md links to {link}, which is not there")):
        site_link(link, "docs/data.md", HERE)


@pytest.mark.parametrize(
    ("told", "revision"),
    [
        ({}, "main"),
        ({"GITHUB_REF": "refs/tags/v1.0.0"}, "v1.0.0"),
        ({"GITHUB_REF": "refs/heads/a/b"}, "a/b"),
        ({"GITHUB_REF": "refs/pull/30/merge"}, "main"),
    ],
)
def test_the_address_is_the_project_s(told: dict[str, str], revision: str) -> None:
    own = Repository.of(ROOT, told)
    assert f'Repository = "{own.address}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert own.revision == revision
    told |= {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "them/fork"}
    assert Repository.of(ROOT, told) == Repository(ROOT, "https://example.org/them/fork", revision)


def test_code_is_no_link_and_comments_go() -> None:
    page = """\
<!-- written
by a program -->
# Title
See [`x](y)`](files.md), `[a](gone.md)` and ``a ` [b](gone.md)``.

<!-- run -->
```
[c](gone.md) <!-- stays -->
~~~
```

- in a list
  ```python
  d["x"](gone)
  ```

![two](images/page-dark.png) [three](../examples)
"""
    wanted = (
        page.replace("<!-- written\nby a program -->", "\n")
        .replace("<!-- run -->", "")
        .replace("../examples", f"{TREE}/examples")
    )
    assert shown(page, "docs/data.md", HERE) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A ` alone [a](../merging)\n\nand ` one more", f"A ` alone [a]({TREE}/merging)\n\nand ` one more"),
        ("[a]( ../merging )", f"[a]( {TREE}/merging )"),
        ("[a](<../merging> 'title')", f"[a](<{TREE}/merging> 'title')"),
        ("[a][b]\n\n[b]: ../merging", f"[a][b]\n\n[b]: {TREE}/merging"),
        ("Said.[^1]\n\n[^1]: gone", "Said.[^1]\n\n[^1]: gone"),
        ("```\n[a](gone.md)\n`````\n[b](files.md)", "```\n[a](gone.md)\n`````\n[b](files.md)"),
        ("a `[b\n](gone.md)` c", "a `[b\n](gone.md)` c"),
    ],
)
def test_other_spellings_of_links_are_followed(text: str, wanted: str) -> None:
    assert shown(text, "docs/data.md", HERE) == wanted


def test_a_spelling_that_is_not_followed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sphinx would copy the file to the site and lead there: nothing else would fail."""
    pytest.importorskip("sphinx", reason="not installed (extra dev-full)")
    from docutils.utils import new_document
    from sphinx import addnodes

    from docs.website import extension

    said: list[str] = []
    monkeypatch.setattr(extension._log, "warning", lambda text, *told, **_: said.append(text % told))
    page = new_document("data.md")
    page += addnodes.download_reference("", "", reftarget="../setup.py")
    extension.refuse_copies(None, page)  # type: ignore[arg-type] (of which it needs nothing)
    assert said == ["a link to ../setup.py is spelled in a way that is not followed"]


def test_a_picture_in_two_schemes_is_two_images() -> None:
    """That of the README, which follows the system there and the reader's choice here; lines keep their numbers."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = shown(readme, "README.md", HERE)
    assert len(made.splitlines()) == len(readme.splitlines())
    schemes = re.findall(r'^<img class="only-(\w+)" src="images/page-(\w+)\.png" alt="The page of', made, re.MULTILINE)
    assert schemes == [("light", "light"), ("dark", "dark")]
    assert "<picture>" in readme
    assert "<picture>" not in made


def test_every_page_is_listed() -> None:
    missing = unlisted(ROOT / "docs")
    assert not missing, f"docs/index.md lists no {', '.join(f'{name}.md' for name in missing)}: add it to a section"
    listed = contents((ROOT / "docs/index.md").read_text(encoding="utf-8"))
    assert list(listed) == ["Start", "Guides", "Extend", "Reference", "Results", "Project"]
    names = re.findall(r"\]\(([\w/-]+\.md)\)", (ROOT / "docs/index.md").read_text(encoding="utf-8"))
    assert sorted(names) == sorted(set(names)), "a page is listed once"


def test_a_page_that_nobody_lists_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name in ("one", "two", "results/three"):
        (tmp_path / f"{name}.md").write_text("# A page\n")
    (tmp_path / "index.md").write_text(
        "# All\n\n## Start\n\n- [One](one.md#part): a page\n\n## Rest\n\n[One](one.md)\n"
    )
    assert unlisted(tmp_path) == ["results/three", "two"]


def test_the_reference_leads_to_each_of_its_pages() -> None:
    text = (ROOT / "docs/reference/index.md").read_text(encoding="utf-8")
    there = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in ROOT.glob("docs/reference/*/*.md")}
    assert set(linked(text, "docs/reference/index.md")) == there


def test_the_api_is_the_public_table() -> None:
    """Each of its names once, in a section that has a title, and no other name."""
    wings = api.public()
    assert set(wings) == set(api.TITLES) == set(api.ABOUT), "docs/website/api.py has a title and a line for each wing"
    named = re.findall(r"^\.\. [a-z:]+:: merging\.(\w+)$", "\n".join(api.pages().values()), re.MULTILINE)
    assert sorted(named) == sorted(merging.__all__)


def test_docstrings_have_no_section_that_would_be_run_together() -> None:
    """A heading that Sphinx does not know is a word, and what is listed below it one paragraph."""
    known = {"Args", "Attributes", "Raises", "Returns", "Yields"}
    known |= {name for name, _ in runpy.run_path(str(ROOT / "docs/conf.py"))["napoleon_custom_sections"]}
    found = [getattr(merging, name) for name in merging.__all__]
    found += [member for each in found if inspect.isclass(each) for member in vars(each).values()]
    texts = [inspect.getdoc(each) or "" for each in found if inspect.isroutine(each) or inspect.isclass(each)]
    named = {name for text in texts for name in re.findall(r"^([A-Z][a-z]+(?: [A-Z]?[a-z]+)?):$", text, re.MULTILINE)}
    assert "Keywords" in named
    assert named <= known


def test_every_result_has_a_page_of_its_own() -> None:
    docs = ROOT / "docs"
    found = gallery.folders(docs)
    committed = {path.parent for path in docs.rglob("*.json") if path.name in gallery.FILES}
    assert set(found) == committed
    assert len({gallery.page_name(folder, docs) for folder in found}) == len(found) >= 6
    shown = gallery.of_folder(docs / "results/animals/first", docs)
    assert shown.said.startswith("▲ greedy soup")
    assert shown.pictures.count("<svg ") == 2
    made = gallery.make_page(docs / "results/animals/first")
    assert '<header>\n<nav><a href="index.html">' in made, "whoever comes from elsewhere is stuck"


def test_what_is_wrong_with_a_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="more/a.html#here">1</a><a href="more/a.html#gone">2</a><a href="b.html">3</a><a href="#top">4</a>'
        '<a href="https://example.org">5</a><img src="https://example.org/x.png"><link rel="next" href="//x.org/a">'
        '<link rel="stylesheet" href="style.css"><p id="top" style="background: url(//example.org/y.png)">'
    )
    (tmp_path / "more/a.html").write_text('<p id="here"><a href="../index.html">back</a>')
    (tmp_path / "style.css").write_text("@import 'https://fonts.example.org/f.css'; p { background: url('x.png'); }")
    assert checking.faults(tmp_path) == [
        "index.html loads https://example.org/x.png from another host",
        "index.html loads //example.org/y.png from another host",
        "index.html links to more/a.html#gone, but there is no such place in it",
        "index.html links to b.html, which is not there",
        "style.css loads https://fonts.example.org/f.css from another host",
    ]
