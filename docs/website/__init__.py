"""The site: docs/ as Sphinx takes it, the API's pages, the gallery. ``docs/conf.py`` puts them together."""
