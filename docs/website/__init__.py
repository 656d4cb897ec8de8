"""The site: pages of docs/ as Sphinx takes them, the API's pages, and the gallery. ``docs/conf.py`` puts them together."""
