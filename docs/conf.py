"""Sphinx settings: python -m sphinx -W -b html docs docs/_build; -b man for manual pages."""

project = "socksd"
author = "The socksd developers"
html_theme = "alabaster"
exclude_patterns = ["_build"]
# Of the manual pages, which are kept as they are built (man/); not the day of the build.
today = "November 2026"
man_pages = [
    ("man/socksd", "socksd", "a SOCKS5 gateway", author, 1),
    ("man/socksd.toml", "socksd.toml", "the configuration of socksd", author, 5),
    ("man/socksd.8", "socksd", "the service of socksd", author, 8),
]
