"""Sphinx settings: python -m sphinx -W -b html docs docs/_build"""

project = "socksd"
author = "The socksd developers"
html_theme = "alabaster"
exclude_patterns = ["_build"]
