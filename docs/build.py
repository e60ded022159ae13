"""Build the site in _docs from the notebooks, offline and without Quarto: `make docs`. `--serve` shows it and rebuilds
on change.

nbdev reads the notebooks, smalldocs lays out the pages. In between: code that is exported stays visible and gets an
anchor, the
reference is written from the docstrings, formulas become MathML, and every figure has a text.
"""

import argparse
import ast
import base64
import contextlib
import functools
import html
import http.server
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import yaml
from execnb.nbio import dict2nb, mk_cell
from math_core import LatexError, LatexToMathML
from nbdev.process import NBProcessor
from nbdev.processors import (
    clean_magics,
    filter_stream_,
    hide_,
    hide_line,
    populate_language,
    rm_header_dash,
    strip_ansi,
)
from smalldocs import api, highlight
from smalldocs import site as smalldocs

ROOT = Path(__file__).resolve().parent.parent
NBS, HERE = ROOT / "nbs", ROOT / "docs"
PACKAGE = "har_ls"
TITLE = re.compile(r"\A#\s+(?P<title>.+?)\s*\n+(?:>\s+(?P<description>.+?)\s*(?:\n|\Z))?")
# study notebooks that are read for their code; the others are read for what they say
TEMPLATES = ("run", "trained", "distil", "advise", "advise_outputs", "dataset")
PROGRESS = re.compile(r"\d+%\|.*\[\d+:\d+<")  # a progress bar that a terminal would have wiped
SHRINKS = 600  # pixels up to which a figure can be read when a phone makes it as narrow as itself
CODE = re.compile(r'(<code class="sourceCode [^"]*">)(.*?)(</code>)', re.S)
MATH = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S)


UNPUBLISHED = """::: {.callout-note}
## No results are published yet
This page computes its sentences, tables and figures from results. `{command}` makes some on any machine and writes this
page from them.
:::

"""
ACCESSIBLE = [  # what scrolls can be reached with the keyboard; every landmark has a name; toggles are buttons
    (r"<pre(?=>)", '<pre tabindex="0"'),
    (r'<div class="(cell-output cell-output-display|sd-table)', r'<div tabindex="0" class="\1'),
    (r'<math display="block"', '<math display="block" tabindex="0"'),
    (r'<div class="quarto-figure', '<div tabindex="0" class="quarto-figure'),
    (r'<nav class="navbar', '<nav aria-label="Site" class="navbar'),
    (r'<nav id="quarto-sidebar"', '<nav id="quarto-sidebar" aria-label="Pages"'),
    (r'<nav class="quarto-secondary-nav"', '<nav aria-label="Place" class="quarto-secondary-nav"'),
    (r'<nav class="page-navigation"', '<nav aria-label="Neighbours" class="page-navigation"'),
    (
        r'data-bs-target="(#quarto-sidebar-section-\d+)" role="navigation"',
        r'data-bs-target="\1" href="\1" role="button"',
    ),
]


class DocsError(Exception):
    "The sources cannot become a site. The message says which file and what to do."


def sources():
    """The pages' sources, in reading order: notebooks and Markdown under nbs/, without hidden, private and
    checkpoint files."""
    for path in sorted(NBS.rglob("*")):
        parts = path.relative_to(NBS).parts
        if path.suffix in (".ipynb", ".md") and not any(p.startswith((".", "_")) for p in parts):
            yield path


# --- notebooks --------------------------------------------------------------------------------------------------------


def defined(code):
    "Names of the functions, classes and constants that a cell defines."
    with contextlib.suppress(SyntaxError):
        for node in ast.parse(code).body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.Assign):
                yield from (t.id for t in node.targets if isinstance(t, ast.Name))


def only_imports(code):
    "Whether a cell does nothing but import."
    try:
        body = ast.parse(code).body
    except SyntaxError:
        return False
    return bool(body) and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)


def options(cell, **more):
    "Put Quarto options at the top of a cell, unless it has them."
    lines = [
        f"#| {k.replace('_', '-')}: {json.dumps(v)}"
        for k, v in more.items()
        if f"#| {k.replace('_', '-')}:" not in cell.source
    ]
    cell.source = "\n".join([*lines, cell.source])


def give_text(cell, above, source):
    """Give a figure its text: the option fig-alt, or else the last paragraph above it. A drawing (SVG) becomes a
    picture, which can have a text."""
    said = re.search(r"^#\| fig-alt: (.+)$", cell.source, re.M)
    text = (
        said[1].strip("'\" ") if said else above.source.rpartition("\n\n")[2] if above.cell_type == "markdown" else ""
    )
    if not text:
        raise DocsError(
            f"{source.relative_to(ROOT)}: a figure has no text; begin its cell with `#| fig-alt: ...`,"
            " which says what is seen"
        )
    cell.source = re.sub(r"^#\| fig-alt: .+\n?", "", cell.source, flags=re.M)  # a colon in it would be taken for YAML
    options(cell, fig_alt=" ".join(text.split()))
    for out in cell.outputs:
        if svg := out.get("data", {}).pop("image/svg+xml", None):
            svg = "".join(svg)
            width, unit = re.search(r'<svg[^>]* width="([\d.]+)(pt)?"', svg).groups()
            width = round(float(width) * (4 / 3 if unit else 1))  # points to pixels
            wide = f' width="{width}"' if width > SHRINKS else ""  # which says to a phone that it has to scroll
            code = base64.b64encode(svg.encode()).decode()
            picture = f'<img class="img-fluid"{wide} src="data:image/svg+xml;base64,{code}"'
            out["data"] = {"text/html": f'{picture} alt="{html.escape(text)}">'}


def joined(cells):
    "Cells with neighbouring code cells made one, where nothing is printed between them."
    kept = cells[:1]
    for cell in cells[1:]:
        if cell.cell_type == kept[-1].cell_type == "code" and not kept[-1].get("outputs"):
            cell.source = kept.pop().source.rstrip() + "\n\n" + re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)
        kept.append(cell)
    return kept


def stage_notebook(source, target):
    "Write the notebook as it is to be shown; return the module it exports and the anchor of each name that it exports."
    processor = NBProcessor(
        nb=dict2nb(json.loads(source.read_text(encoding="utf-8"))),
        procs=[populate_language, strip_ansi, hide_line, filter_stream_, rm_header_dash, hide_, clean_magics],
    )
    module, anchors, cells = None, {}, []
    for cell in processor.nb.cells:  # nbdev has moved the directives from the source into directives_
        module = cell.directives_.get("default_exp", [module])[0]
    processor.process()
    for cell in processor.nb.cells:
        if "default_exp" in cell.directives_:
            continue
        if cell.cell_type == "code":
            if only_imports(re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)):
                options(
                    cell,
                    code_fold=True,
                    code_summary="Imports" if "export" in cell.directives_ else "Imports for this page",
                )
            elif cell.directives_.keys() & {"export", "exports", "exporti"} and (names := list(defined(cell.source))):
                options(cell, label=f"code-{names[0]}")
                anchors |= {name: f"code-{names[0]}" for name in names}
            if cell.get("outputs"):
                cell.outputs = [
                    out
                    for out in cell.outputs
                    if not PROGRESS.search("".join(out.get("text") or out.get("data", {}).get("text/plain", "")))
                ]
            if any(kind.startswith("image/") for out in cell.get("outputs", []) for kind in out.get("data", {})):
                give_text(cell, cells[-1], source)
        cells.append(cell)
    first = cells[0].source if cells and cells[0].cell_type == "markdown" else ""
    title = TITLE.match(first)
    if not title:
        raise DocsError(f"{source.relative_to(ROOT)}: the first cell has no `# title`")
    front = {k: v for k, v in title.groupdict().items() if v}
    cells[0].source = first[title.end() :]
    links = [f"[The notebook]({source.stem}.ipynb?download)"]
    if module:
        links = [f"Module [`{PACKAGE}.{module}`](/reference/{PACKAGE}.{module}.md)", *links]
    if source == NBS / "index.ipynb":  # the front page opens with the question itself
        question, _, more = front["description"].partition("? ")
        front = {"title": f"{question}?", "description": more}
        links = [
            "[The study](study/index.md)",
            "[The components](01_loss/00_smoothing.ipynb)",
            "[How to](howto/index.md)",
            "[Reference](reference/index.md)",
        ]
    if (NBS / "study") in source.parents and source.stem not in TEMPLATES:
        cells = joined(cells)
        for cell in cells:
            if cell.cell_type == "code":
                options(cell, code_fold=True, code_summary="Code")
        if not any(cell.get("outputs") for cell in cells):
            command = "make study" if source.stem == "answer" else f".venv/bin/har-ls {source.stem}"
            cells[0].source = UNPUBLISHED.replace("{command}", command) + cells[0].source
    about = [mk_cell("::: {.about-page}\n" + " · ".join(links) + "\n:::", "markdown")]
    processor.nb.cells = [mk_cell("---\n" + yaml.safe_dump(front, allow_unicode=True) + "---", "raw"), *about, *cells]
    for cell in processor.nb.cells:
        for key in ("idx_", "directives_"):
            cell.pop(key, None)
    target.write_text(json.dumps(processor.nb, default=vars), encoding="utf-8")
    return module, anchors


# --- reference --------------------------------------------------------------------------------------------------------


def stage_reference(explained, stage):
    """Write one page per module, in reading order, from signatures and docstrings; return the pages and where each
    name is found."""
    settings = api.Settings.read(stage, {"packages": [PACKAGE], "out": "reference", "root": str(ROOT)})
    settings.importable()
    inventory = api.inventory(settings.packages)
    order = {f"{PACKAGE}.{module}": i for i, (module, _, _) in enumerate(explained)}
    modules = sorted((m for m in api.package_modules(PACKAGE) if m.__name__ in order), key=lambda m: order[m.__name__])
    pages, symbols = [], {}
    (stage / "reference").mkdir()
    for module in modules:
        _, source, anchors = explained[order[module.__name__]]
        notebook = "/" + source.relative_to(NBS).as_posix()
        mine = [s for s in inventory if s.module == module.__name__]
        text = api.page(settings, module, mine)

        def link(match, anchors=anchors, notebook=notebook):
            anchor = anchors.get(match["name"].partition(".")[0])
            return match[0] + (
                f"\n\n[Code]({notebook}#{anchor}){{.source-link}}\n" if anchor and "." not in match["name"] else ""
            )

        text = re.sub(r"^##+ .*\{#(?P<name>\S+)\}$", link, text, flags=re.M)
        page = stage / "reference" / f"{module.__name__}.md"
        head, _, body = text.partition("\n---\n")
        page.write_text(
            f"{head}\n---\n\n::: {{.about-page}}\n[Explained step by step]({notebook})\n:::\n{body}", encoding="utf-8"
        )
        pages.append(f"reference/{page.name}")
        symbols[module.__name__] = f"/reference/{page.name}"
        for symbol in mine:
            if symbol.name:
                target = f"/reference/{page.name}#{symbol.name}"
                symbols.setdefault(symbol.name, target)
                symbols[f"{module.__name__}.{symbol.name}"] = target
    index = [
        "---",
        "title: Reference",
        "description: Signatures and docstrings of everything that the modules export, in reading order.",
        "---",
        "",
        "| module | what it is for |",
        "| --- | --- |",
    ]
    for module, page in zip(modules, pages):
        summary = next(s.summary for s in inventory if s.module == module.__name__ and not s.name)
        index.append(f"| [`{module.__name__}`](/{page}) | {summary} |")
    (stage / "reference" / "index.md").write_text("\n".join(index) + "\n", encoding="utf-8")
    return ["reference/index.md", *pages], symbols


# --- the site ---------------------------------------------------------------------------------------------------------


def stage_site(stage, out):
    "Put everything that smalldocs reads into the folder `stage`."
    explained = []
    for source in sources():
        target = stage / source.relative_to(NBS)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            shutil.copy(source, target)
            continue
        module, anchors = stage_notebook(source, target)
        if module:
            explained.append((module, source, anchors))
    for picture in NBS.rglob("*"):
        if picture.suffix in (".svg", ".png", ".css") and not any(
            p.startswith((".", "_")) for p in picture.relative_to(NBS).parts
        ):
            shutil.copy(picture, stage / picture.relative_to(NBS))
    explained.sort(key=lambda e: e[0] == "core")  # what is underneath everything comes last
    pages, symbols = stage_reference(explained, stage)
    (stage / "_symbols.json").write_text(json.dumps(symbols), encoding="utf-8")
    bootstrap = (smalldocs.ASSETS / "vendor/bootstrap/bootstrap.min.css").read_text(encoding="utf-8")
    (stage / "light.css").write_text(bootstrap + (HERE / "light.css").read_text(encoding="utf-8"), encoding="utf-8")
    dark = bootstrap.replace("[data-bs-theme=dark]", ":root")
    (stage / "dark.css").write_text(dark + (HERE / "dark.css").read_text(encoding="utf-8"), encoding="utf-8")
    config = yaml.safe_load((NBS / "_quarto.yml").read_text(encoding="utf-8"))
    sidebar = yaml.safe_load((NBS / "sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]
    components = next(menu for menu in sidebar if menu["id"] == "components")["contents"]
    named = re.findall(r"[\w/*.]+\.(?:ipynb|md)", json.dumps(sidebar))
    unnamed = [
        name
        for name in (source.relative_to(NBS).as_posix() for source in sources())
        if not any(fnmatch(name, n) for n in [*named, "index.ipynb"])
    ]
    components[-1]["contents"] += unnamed
    config.pop("metadata-files")
    config["project"]["output-dir"] = os.path.relpath(out, stage)
    config["format"]["html"] |= {"theme": {"light": "light.css", "dark": "dark.css"}, "lang": "en"}
    del config["format"]["html"]["html-math-method"]
    config["website"]["navbar"]["left"].append({"text": "Reference", "href": "reference/index.md"})
    config["website"]["sidebar"] = [{"id": "front", "contents": []}, *sidebar, {"id": "reference", "contents": pages}]
    config["smalldocs"] = {"linkify": True}
    (stage / "_quarto.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


class Formulas:
    "TeX to MathML, remembering the letters for which a font is needed."

    def __init__(self):
        self.convert, self.letters = LatexToMathML(), set()

    def __call__(self, page, tex, display):
        try:
            mathml = self.convert.convert_with_local_state(tex, displaystyle=display)
        except LatexError as error:
            raise DocsError(f"{page}: the formula {tex!r} cannot be shown: {error}") from None
        self.letters |= set(html.unescape(re.sub(r"<[^>]*>", "", mathml)))
        return mathml


def font(letters, target):
    "Write the mathematical font with just the letters that occur, so that formulas look the same everywhere."
    import ziamath
    from fontTools import subset

    wanted = subset.Options(flavor="woff", layout_features=["*"], notdef_outline=True)
    stix = subset.load_font(str(Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"), wanted)
    cut = subset.Subsetter(wanted)
    cut.populate(unicodes=sorted({ord(c) for c in letters} | set(range(0x20, 0x7F))))
    cut.subset(stix)
    subset.save_font(stix, str(target), wanted)


def lines(code):
    """Highlighted code with an element around each line, which knows its indent, so that long lines wrap below their
    own beginning."""
    wrapped, inside = [], []
    for line in code.split("\n"):
        text = "".join(inside) + line
        for tag in re.findall(r"</?span[^>]*>", line):
            inside = inside[:-1] if tag[1] == "/" else [*inside, tag]
        plain = re.sub(r"<[^>]*>", "", line)
        wrapped.append(
            f'<span class="line" style="--in:{len(plain) - len(plain.lstrip())}">{text}{"</span>" * len(inside)}</span>'
        )
    return "\n".join(wrapped)


def sections(title, address, page):
    """What search knows of a page: one entry for its beginning and one per section, with the text that a reader sees
    and the names defined there."""
    body = re.search(r"</header>(.*)</main>", page, re.S)[1]
    body = re.sub(
        r'<(nav|button|style|script|svg)\b.*?</\1>|<math display="block".*?</math>|<img[^>]*>'
        r'|<div class="about-page">.*?</div>',
        " ",
        body,
        flags=re.S,
    )
    parts = re.split(r'<section id="([^"]+)"[^>]*>\s*<h\d[^>]*>(.*?)</h\d>', body)
    for anchor, heading, text in [("", "", parts[0]), *zip(parts[1::3], parts[2::3], parts[3::3])]:
        plain, section = (html.unescape(re.sub(r"<[^>]*>", "", part)) for part in (text, heading))
        names = re.findall(r"^(?:def|class) (\w+)", plain, re.M)
        yield {
            "href": f"{address}#{anchor}".rstrip("#"),
            "title": title,
            "section": section,
            "text": " ".join(plain.split()),
            "names": " ".join(names),
        }


LICENCES = "Vega, Vega-Lite, Vega-Embed: BSD-3-Clause, UW Interactive Data Lab; D3: ISC, Mike Bostock"


def explorer(libraries):
    """Put the explorer's script and Vega, which draws for it, into the folder; return their names. Bundling Vega takes
    seconds, so one of the same version is kept."""
    import vl_convert

    vega = libraries / f"vega-{version('vl-convert-python')}.js"
    if not vega.is_file():
        # in a scope of its own: the bundle has hundreds of short names, and the page has other scripts
        vega.write_text(f"/* {LICENCES} */\n(() => {{\n{vl_convert.javascript_bundle()}\n}})();\n", encoding="utf-8")
    shutil.copy(HERE / "explorer.js", libraries)
    return vega.name, "explorer.js"


def with_explorer(text, libraries):
    "The page with the explorer's scripts, if it carries effects to explore."
    if 'class="explorer-data"' not in text:
        return text
    offset = re.search(r'<meta name="smalldocs:offset" content="([^"]*)"', text)[1]
    scripts = "".join(f'<script src="{offset}site_libs/{name}" defer></script>' for name in explorer(libraries))
    return text.replace("</head>", f"{scripts}\n</head>", 1)


def finish(built, out):
    "What smalldocs leaves to the browser and to other sites is done here: formulas, search, wide tables, downloads."
    formulas = Formulas()
    for page in built.pages.values():
        path = out / page.out
        text = path.read_text(encoding="utf-8")
        text = MATH.sub(lambda m, page=page: formulas(page.src, html.unescape(m[2]), m[1] == "display"), text)
        text = re.sub(r'<(link|script)[^>]*"https://cdn\.jsdelivr\.net/npm/katex@[^>]*>(</script>)?', "", text)
        text = re.sub(r"\.ipynb\?download", ".ipynb", text)
        text = re.sub(r"(?<=\d) ± ?(?=\d)", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}", text)
        text = CODE.sub(lambda m: m[1] + lines(m[2].rstrip("\n")) + m[3], text)
        for pattern, better in ACCESSIBLE:
            text = re.sub(pattern, better, text)
        text = with_explorer(text, out / "site_libs")
        path.write_text(text, encoding="utf-8")
    entries = [
        entry
        for page in built.pages.values()
        for entry in sections(page.title, str(page.out), (out / page.out).read_text(encoding="utf-8"))
    ]
    (out / "search.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    (out / "search-data.js").write_text(
        "window.searchEntries = " + json.dumps(entries, ensure_ascii=False) + ";\n", encoding="utf-8"
    )
    shutil.copy(HERE / "site.js", out / "site_libs" / "fuse" / "fuse.min.js")
    font(formulas.letters, out / "site_libs" / "stix-two-math.woff")
    for source in sources():
        if source.suffix == ".ipynb":
            shutil.copy(source, out / source.relative_to(NBS))


def remember():
    "A third of a build is two questions asked again and again: where a source begins and ends, what a token is called."
    inspect.getsourcelines = functools.cache(inspect.getsourcelines)
    highlight.css_class = functools.cache(highlight.css_class)


def build(out):
    "Build the whole site into the folder `out`; return the number of pages."
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder).resolve()
        stage_site(stage, out)
        built = smalldocs.build(stage, quiet=True)
    for warning in built.warnings:
        print(f"har_ls: {warning}", file=sys.stderr)
    finish(built, out)
    return len(built.pages)


def newest():
    "When the sources last changed."
    return max(p.stat().st_mtime for folder in (NBS, HERE, ROOT / PACKAGE) for p in folder.rglob("*") if p.is_file())


def serve(out, port):
    "Show the site on this machine, and build it again when a source changes."
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=out)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"har_ls: the site is at http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
    seen = newest()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            if (now := newest()) > seen:
                seen = now
                subprocess.run([sys.executable, __file__, "--out", out])  # a fresh process reads the docstrings afresh


def main():
    parser = argparse.ArgumentParser(description="Build the site in _docs from the notebooks.")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="the folder of the site")
    parser.add_argument("--serve", action="store_true", help="show it, and build it again when a source changes")
    parser.add_argument("--port", type=int, default=8800)
    args = parser.parse_args()
    start, out = time.monotonic(), args.out.resolve()
    remember()
    try:
        pages = build(out)
    except DocsError as error:
        print(f"har_ls: {error}", file=sys.stderr)
        return 1
    print(f"har_ls: {pages} pages after {time.monotonic() - start:.0f} s; begin with {os.path.relpath(out)}/index.html")
    if args.serve:
        serve(out, args.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
