"""Make the page: one HTML file with its own data, which opens offline.

    database | reports (SQL aggregates) -> data.collect -> grids -> render.write -> one file

The grids are small: a browser filters and adds up a year within a frame.
"""

from etl.page.data import PageData, collect
from etl.page.render import write

__all__ = ["PageData", "collect", "write"]
