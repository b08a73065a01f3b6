"""Calls of other libraries beside ours: one TOML file for each page of docs/coming_from.

`pages` reads them, `scenes` holds the arrays that the calls name, `write` makes the pages. What the
others gave was recorded by `tests/goldens/make_migration.py`; `tests/test_migration.py` runs ours.
"""
