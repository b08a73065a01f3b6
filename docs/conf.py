"""How Sphinx builds the site: `./run docs`.

The pages of the losses and of the modules are written by the extensions in `_ext` before the build,
into `loss/` and `api/`; their pictures into `_plots/`. None of these is in the repository.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import jaxloss  # noqa: E402

project = "jaxloss"
author = "the authors of jaxloss"
version = release = jaxloss.__version__

extensions = ["myst_parser", "mathml", "losses", "modules", "gallery"]
exclude_patterns = ["_build", "_ext", "_plots"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
add_function_parentheses = False
highlight_language = "text"

html_theme = "furo"
html_title = "jaxloss"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5fa5", "color-brand-content": "#0b5fa5"},
    "dark_css_variables": {"color-brand-primary": "#6cb2f0", "color-brand-content": "#6cb2f0"},
}
