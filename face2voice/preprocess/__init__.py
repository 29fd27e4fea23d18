"""Corpora -> what a training reads: folders of records, made in parallel and once."""

from .makers import MAKERS, Maker, find_maker
from .media import Unusable
from .run import Report, preprocess
from .store import Entry, Prepared

__all__ = ["MAKERS", "Entry", "Maker", "Prepared", "Report", "Unusable", "find_maker", "preprocess"]
