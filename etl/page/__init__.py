"""Make the page: one HTML file with its own data, which opens offline.

    database | reports (SQL aggregates) -> data.collect -> grids -> render.write -> one file

A browser filters and adds up a year of them within a frame.
"""

from etl.page.data import PageData, collect
from etl.page.render import write

__all__ = ["PageData", "collect", "write"]
