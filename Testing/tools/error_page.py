"""Writes docs/errors.md from the source: every stable error code with what it says.

    python Testing/tools/error_page.py

The worker's errors point at this page's headings, so a test compares it with the source.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "errors.md"

_CODE = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)+")
_INTRODUCTION = """# Error codes

Every error has a stable code, says what is wrong and what to do. Commands print it and exit with 2 (wrong usage),
3 (bad input), 4 (cannot be done here) or 130 (cancelled); in Slicer it stands in the module's panel. The sign … stands
for what differs from case to case. This page is written by `python Testing/tools/error_page.py`.
"""


def texts_of(node: ast.expr) -> str:
    """Return a string expression's words, ``…`` for what is put in at run time; empty if it is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return texts_of(node.left) + texts_of(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_" and node.args:
        return texts_of(node.args[0])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return texts_of(node.func.value)
    return "…" if isinstance(node, ast.Name | ast.Attribute | ast.Subscript | ast.IfExp) else ""


def raised_in(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (code, what, remedy) of every coded error that ``path`` makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and len(node.args) >= 2:
            code = texts_of(node.args[0])
            if _CODE.fullmatch(code) and not code.endswith((".json", ".html", ".py", ".log", ".crt")):
                words = [texts_of(argument).strip() for argument in node.args[1:3]]
                if all(words) and len(words) == 2 and " " in "".join(words):
                    yield code, words[0], words[1]


def page() -> str:
    """Return the whole page."""
    found: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for folder in ("FedSegCore", "FedSegSlicer"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for code, what, remedy in raised_in(path):
                found[code][re.sub(r"…+", "…", what), re.sub(r"…+", "…", remedy)] = None
    parts = [_INTRODUCTION]
    for code in sorted(found):
        lines = [f"* {what} — {remedy}" for what, remedy in found[code]]
        parts.append("\n".join([f"### {code}", "", *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
