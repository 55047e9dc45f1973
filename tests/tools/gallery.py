"""The gallery: build/index.html, a card for each executed notebook, and the notebooks as HTML."""

import html
import json
import os
import re
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter

from helpers.env import write_file
from tests.tools import common

# nbconvert's own template writes a fixed alt text; only the alt attribute differs here
TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- macro picture(output, kind) -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:{{ kind }};base64,{{ output.data[kind] | replace('\\n', '') | escape_html }}"
 alt="{{ (output | get_metadata('alt', kind) or '') | escape_html }}"
{%- for side in ('width', 'height') if output | get_metadata(side, kind) %}
 {{ side }}="{{ output | get_metadata(side, kind) }}"
{%- endfor %}>
</div>
{%- endmacro -%}
{%- block data_png scoped -%}{{ picture(output, 'image/png') }}{%- endblock data_png -%}
{%- block data_jpg scoped -%}{{ picture(output, 'image/jpeg') }}{%- endblock data_jpg -%}
"""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2128; --soft: #57606a;
  --line: #d5dae0; --good: #0b6e4f; --bad: #b3261e; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b2129; --ink: #e8ecf1;
  --soft: #a2adb9; --line: #333c47; --good: #5fd3a6; --bad: #ff9088; --link: #7ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: clamp(1.4rem, 5vw, 2.2rem); line-height: 1.2; margin: 0 0 .3rem; }
.sum { color: var(--soft); margin: 0 0 1.5rem; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  overflow: hidden;
  display: flex; flex-direction: column; }
.picture { display: block; background: #fff; aspect-ratio: 16 / 10; }
.picture img { width: 100%; height: 100%; object-fit: contain; display: block; }
.text { padding: .8rem 1rem 1rem; display: flex; flex-direction: column; gap: .4rem; flex: 1; }
h2 { font-size: 1.1rem; margin: 0; } h2 a { color: var(--link); } p { margin: 0; }
.facts { margin-top: auto; display: flex; flex-wrap: wrap; gap: .3rem .8rem; color: var(--soft);
  font-size: .9rem; }
.passed, .failed { font-weight: 600; }
.passed { color: var(--good); }
.failed { color: var(--bad); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .85rem;
  color: var(--bad); }
"""


def picture(notebook) -> tuple[str, str, str] | None:
    """Media type, base64 and alt text for the card: from the teaser, else the first there is."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in sorted(cells, key=lambda cell: "teaser" not in common.tags(cell)):
        for out in cell["outputs"]:
            for kind in [
                kind for kind in out.get("data", {}) if kind in ("image/png", "image/jpeg")
            ]:
                data = out["data"][kind]
                data = data if isinstance(data, str) else "".join(data)
                return (
                    kind,
                    re.sub(r"\s", "", data),
                    out.get("metadata", {}).get(kind, {}).get("alt", ""),
                )
    return None


def description(notebook) -> str:
    """One line for the card: what the notebook builds, from its metadata or its first paragraph."""
    stated = notebook["metadata"].get("course", {}).get("builds")
    if stated:
        return stated
    first = common.text(notebook["cells"][0]) if notebook["cells"] else ""
    paragraphs = [p.strip() for p in first.split("\n\n")]
    plain = [p for p in paragraphs if p and p[0] not in "#[!|<-" and not p.startswith("```")]
    line = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", plain[0] if plain else "").replace("\n", " ")
    return re.sub(r"[*`_]", "", line)


def page_title(root: Path) -> str:
    """The README's first heading."""
    readme = root / "README.md"
    found = (
        re.search(r"^# (.+)$", readme.read_text(encoding="utf-8"), re.MULTILINE)
        if readme.exists()
        else None
    )
    return re.sub(r"[*`]", "", found[1]).strip() if found else "The course"


def to_html(notebook) -> str:
    """A notebook as one HTML page, pictures inside it and with their alt text."""
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"course.html.j2": TEMPLATE})], template_file="course.html.j2"
    )
    return exporter.from_notebook_node(notebook)[0]


def card(notebook, facts: dict) -> str:
    """The card of one notebook."""
    link = f"notebooks/{facts['name']}.html"
    shown = picture(notebook)
    image = (
        f'<img src="data:{shown[0]};base64,{shown[1]}" alt="{html.escape(shown[2])}">'
        if shown
        else ""
    )
    state = "failed" if facts["error"] else "passed"
    error = f"<pre>{html.escape(facts['error'])}</pre>" if facts["error"] else ""
    number = facts["name"].split("_")[0]
    title = re.sub(r"[*`]", "", common.heading(notebook)) or facts["name"]
    title = f"{number} · {re.sub(r'^0*[0-9]+ · ', '', title)}"  # a heading may carry its own number
    return f"""<article>
<a class="picture" href="{link}" tabindex="-1">{image}</a>
<div class="text"><h2><a href="{link}">{html.escape(title)}</a></h2>
<p>{html.escape(description(notebook))}</p>{error}
<p class="facts"><span class="{state}">{"✗" if facts["error"] else "✓"} {state}</span>
<span>{facts["seconds"]:.0f} s</span><span>profile {html.escape(facts["profile"])}</span></p>
</div></article>"""


def index(cards: list[str], title: str, summary: str) -> str:
    """The page around the cards."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><main><h1>{html.escape(title)}</h1><p class="sum">{html.escape(summary)}</p>
<div class="grid">
{chr(10).join(cards)}
</div></main></body></html>
"""


def write(results: list, build: Path, folder: Path = common.NOTEBOOKS) -> Path:
    """Store the executed notebooks and write the page; the others keep their last card."""
    kept = build / "notebooks"
    for result in results:
        name = result.path.stem
        facts = {"name": name, "seconds": result.seconds, "error": result.error}
        facts["profile"] = os.environ.get("COURSE_PROFILE") or "quick"
        write_file(kept / f"{name}.ipynb", nbformat.writes(result.notebook) + "\n")
        write_file(kept / f"{name}.html", to_html(result.notebook))
        write_file(kept / f"{name}.json", json.dumps(facts))
    cards, seconds, failed = [], 0.0, 0
    for path in common.select([], folder):
        if (kept / f"{path.stem}.json").exists():
            facts = json.loads((kept / f"{path.stem}.json").read_text(encoding="utf-8"))
            cards.append(card(common.read(kept / f"{path.stem}.ipynb"), facts))
            seconds, failed = seconds + facts["seconds"], failed + bool(facts["error"])
    summary = f"{len(cards) - failed} of {len(cards)} notebooks passed; {seconds:.0f} s in all."
    return write_file(build / "index.html", index(cards, page_title(folder.parent), summary))
