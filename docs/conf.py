"""The documentation site: `scripts/docs` builds it. Every warning is an error, broken links and anchors included."""

from bridge import __version__

project = "opensearch-neural-bridge"
release = __version__
html_title = f"neural-bridge {__version__}"
html_theme = "furo"
html_show_copyright = False
html_copy_source = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
