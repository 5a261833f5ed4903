"""The makers that ``build.py`` asks, by what they make."""
