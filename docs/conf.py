"""How the documentation becomes a site: `make docs`."""

project = "dask-classify"
author = ""
project_copyright = ""
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures/bench.json"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "dask-classify"
html_show_copyright = False
html_show_sphinx = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_rtype = False
