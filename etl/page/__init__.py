"""Make the page: one HTML file that opens offline, holds its own data, and asks for nothing.

    database | reports (SQL aggregates) -> data.collect -> cubes -> render.write -> one file

The cubes are small, so that a browser can filter and add up a year within a frame.
"""

from etl.page.data import PageData, collect
from etl.page.render import write

__all__ = ["PageData", "collect", "write"]
