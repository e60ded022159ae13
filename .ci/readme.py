"""Render nbs/index.ipynb as README.md, and its picture as nbs/answer.svg, without Quarto. `--check` writes nothing
and fails when they differ."""

import base64
import html
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written from nbs/index.ipynb by `make export`. Edit the notebook. -->\n\n"
PICTURE = re.compile(
    r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]*)".*?>(?:<figcaption>(.*?)</figcaption>)?', re.S
)


def into_nbs(text: str) -> str:
    """Links to notebooks and pictures lead into nbs/."""
    return re.sub(r"\]\((?=[\w/]+\.(ipynb|png|svg))", "](nbs/", text)


def render(notebook: Path) -> dict:  # path -> content
    """Markdown cells as they are, code cells and their printed text fenced, Markdown outputs as they are, a picture
    as a file; links lead into nbs/."""
    parts, files = [], {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(into_nbs(source))
        elif cell["cell_type"] == "code" and not source.startswith(("#| hide", "#| default_exp")):
            if not source.startswith("#| echo: false"):
                parts.append(f"```python\n{source}\n```")
            for output in cell["outputs"]:
                data = {kind: "".join(value) for kind, value in output.get("data", {}).items()}
                text = "".join(output.get("text", "")) or data.get("text/plain")
                if picture := PICTURE.search(data.get("text/html", "")):
                    files[ROOT / "nbs" / "answer.svg"] = base64.b64decode(picture[1])
                    parts.append(
                        "\n\n".join([f"![{html.unescape(picture[2])}](nbs/answer.svg)", *filter(None, [picture[3]])])
                    )
                elif "text/markdown" in data:
                    parts.append(into_nbs(data["text/markdown"]))
                elif text:
                    parts.append("```\n" + text.rstrip("\n") + "\n```")
    return {ROOT / "README.md": (NOTE + "\n\n".join(parts) + "\n").encode(), **files}


def main() -> int:
    for path, content in render(ROOT / "nbs" / "index.ipynb").items():
        if "--check" not in sys.argv:
            path.write_bytes(content)
        elif not path.exists() or path.read_bytes() != content:
            print(f"{path.relative_to(ROOT)} differs from nbs/index.ipynb: run `make export`", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
