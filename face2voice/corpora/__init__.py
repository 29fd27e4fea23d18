"""Speech and faces as they are published -> one kind of record, `Utterance`."""

from .manifest import read_manifest, write_manifest
from .record import Utterance
from .registry import CORPORA, Layout, read_corpus

__all__ = ["CORPORA", "Layout", "Utterance", "read_corpus", "read_manifest", "write_manifest"]
