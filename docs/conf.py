"""Sphinx settings: python -m sphinx -W -b html docs docs/_build; -b man for manual pages."""

project = "socksd"
author = "The socksd developers"
html_theme = "alabaster"
exclude_patterns = ["_build"]
man_pages = [
    ("man/socksd", "socksd", "a SOCKS5 gateway", author, 1),
    ("man/socksd.toml", "socksd.toml", "the configuration of socksd", author, 5),
]
