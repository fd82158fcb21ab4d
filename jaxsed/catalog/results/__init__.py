"""Results of a run: its folder while it lasts, the finished file, and how it is read."""

from jaxsed.catalog.results.reader import Results, load_results

__all__ = ["Results", "load_results"]
