"""Makes data/cmudict.txt.xz from the CMU Pronouncing Dictionary."""

import lzma
import os
from pathlib import Path

from savedmodels import write_atomically

from .lexicon import DATA


def make_lexicon(cmudict_dict_path: str | os.PathLike, out: str | os.PathLike = DATA) -> None:
    """Writes one line "word PH O NES" for each word of a file cmudict.dict, in its order, without comments.

    Left out are second pronunciations, "word(2)", and words with a dot: text has been
    normalised when it is looked up, and has none within words.
    """
    lines = Path(cmudict_dict_path).read_text("utf-8").splitlines()
    entries = (line.partition(" #")[0].strip() for line in lines)
    lexicon = "".join(f"{entry}\n" for entry in entries if not set("(.") & set(entry.partition(" ")[0]))
    write_atomically(Path(out), lzma.compress(lexicon.encode(), preset=9 | lzma.PRESET_EXTREME))
