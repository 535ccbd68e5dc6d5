"""Settings of the documentation site. It fetches nothing, neither while it is built nor while it is read."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "Handrail"
copyright = "The Handrail authors, Apache-2.0"  # noqa: A001 - Sphinx's name for it
version = release = installed_version("handrail")

extensions = ["myst_parser", "sphinx.ext.autodoc", "api_reference"]
exclude_patterns = ["examples"]
myst_heading_anchors = 3

documented_modules = ["handrail", "handrail.evals", "handrail.testing", "handrail.pytest_plugin"]
autodoc_default_options = {"members": True, "member-order": "groupwise"}
autodoc_typehints_format = "short"
default_role = "code"  # single backticks in docstrings, as in Markdown
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

nitpicky = True
# Types of other projects, type variables and private names are not links.
nitpick_ignore_regex = [
    ("py:.*", r"(?!handrail\.).*"),
    ("py:.*", r"handrail\.(.*\.)?([A-Z][A-Za-z]*T|T\d?|P|_\w+)"),
]

html_theme = "furo"
html_title = f"Handrail {version}"
html_show_sphinx = False
html_copy_source = False
