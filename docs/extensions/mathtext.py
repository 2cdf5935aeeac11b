"""Formulas as pictures, drawn by matplotlib; MathJax would be fetched from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import re
from typing import Any

import matplotlib as mpl
from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from sphinx.application import Sphinx

_POINTS = 12  # of the letters of a line

# What TeX calls by another name than matplotlib does.
_NAMES = {r"\\ge\b": r"\\geq", r"\\le\b": r"\\leq", r"\\;": r"\\:", r"\\ ": r"\\:"}


def svg(formula: str) -> tuple[str, float]:
    """The picture of a formula, and how far it reaches below the line, in points.

    Raises:
        ValueError: If matplotlib cannot set it; it says where.

    Example:
        >>> svg("P")[0].startswith("<?xml")
        True
    """
    for name, known in _NAMES.items():
        formula = re.sub(name, known, formula)
    letters = FontProperties(size=_POINTS, math_fontfamily="cm")
    file = io.StringIO()
    # Letters as outlines, ids from a fixed salt, no date: equal formulas are equal pictures.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "agentlab"}):
        depth = math_to_image(f"${formula}$", file, prop=letters, format="svg")
    return re.sub(r"\s*<metadata>.*?</metadata>", "", file.getvalue(), flags=re.DOTALL), depth


def _picture(formula: str) -> str:
    drawn, depth = svg(formula)
    data = base64.b64encode(drawn.encode()).decode()
    return (
        f'<img class="formula" alt="{html.escape(formula)}" '
        f'style="vertical-align: {-depth:.1f}pt" src="data:image/svg+xml;base64,{data}">'
    )


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_picture(node.astext()))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    picture = _picture(node.astext().strip().replace(r"\frac", r"\dfrac"))
    translator.body.append(f'<div style="text-align: center; margin: 1em 0">{picture}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Make this the renderer of formulas in HTML."""
    app.add_html_math_renderer("mathtext", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
