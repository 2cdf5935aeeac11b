"""The course as a static site: `make book` writes build/book.

The source is the whole checkout, so that links between README, docs and notebooks are the same
on the site as in the files. Notebooks are shown with their stored outputs and not executed.
Nothing on a page comes from elsewhere: no font, script or picture. Diagrams are drawn by the
Mermaid inside the installed JupyterLab, formulas by matplotlib.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "Agent Lab"
author = "Agent Lab"
copyright = "Agent Lab"  # without a year, so that equal sources are equal pages
language = "en"

extensions = [
    "myst_nb",
    "mathtext",
    "mermaid",
    "pages",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "agentlab/README.md",
    "agentlab/FILES.md",
    "data/results/*.md",
    "docs/*.md",
    "docs/ko/*.md",
    "notebooks/*.ipynb",
    "notebooks/ko/*.ipynb",
]
exclude_patterns = [".*", "build", "results", "**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # there are no widgets, and these two would come from elsewhere
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the same anchors as on GitHub

html_theme = "sphinx_book_theme"
html_title = "Agent Lab"
html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_source_button": False,
}
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
