"""Whether everything is said, once, and comes to an end."""

from collections.abc import Sequence

import numpy as np

from .figures import Figure, Player, Section, share
from .intelligibility import error_rates, transcribe
from .takes import Take

_WINDOW = 6  # symbols; at least a short word's phones
_TOO_LITTLE = 1.0  # steps of attention, at most 62 ms, for all symbols of a window
_FAULTS = ("skips", "repeats", "stops early", "finds no end")


def measure(takes: Sequence[Take], long: Take | None = None) -> Section:
    """Attention failures over many sentences and, if given, over one long text in its pieces.

    The long text is recognised as well, its word error rate telling of words that are lost
    although the attention went past them.
    """
    rows = [_row(take) for take in takes]
    bad = [bool(row["faults"]) for row in rows]
    figures = {"attention_failures": share(bad, "sentences")}
    for fault in _FAULTS:
        found = [fault in row["faults"] for row in rows]
        figures[fault.replace(" ", "_")] = share(found, "sentences")
    failed = [(row, take) for row, take in zip(rows, takes, strict=True) if row["faults"]][:8]
    players = [Player(f"{', '.join(row['faults'])}: {take.text}", take.speech.samples) for row, take in failed]
    notes = [
        f"{sum(bad)} of {len(rows)} sentences of {min(len(t.text) for t in takes)} to "
        f"{max(len(t.text) for t in takes)} characters failed. Skips: {_WINDOW} symbols in a row get less than one "
        "decoder step of attention together. Repeats: attention goes back by more than a tenth of the text and "
        "passes what it has passed. Stops early: the last tenth gets no attention."
    ]
    if long:
        pieces = [faults(alignment) for alignment in long.speech.alignments]
        broken = [bool(found) for found in pieces]
        figures["long_text_failures"] = share(broken, "pieces of one text")
        heard = transcribe([(long.person, " ".join(long.speech.texts), None, long.speech.samples)])
        rate = error_rates(heard, "text")["word_error_rate"]
        figures["long_text_word_error_rate"] = Figure(rate.value, rate.low, rate.high, heard[0]["words"], "words")
        seconds = long.speech.duration
        notes.append(
            f"The long text: {len(long.text)} characters, {len(pieces)} pieces, {seconds:.0f} s, "
            f"{sum(broken)} pieces with a fault{', a piece was cut off' if long.speech.truncated else ''}."
        )
        players.append(Player("the long text", long.speech.samples[: 16_000 * 30]))
        rows.append({**_row(long), "heard": heard[0]["heard"], "faults_by_piece": pieces})
    return Section(figures, rows, notes, players)


def faults(alignment: np.ndarray) -> list[str]:
    """What went wrong in one piece, of "skips", "repeats" and "stops early".

    Args:
        alignment: (decoder steps, symbols), each step's weights sum to 1.
    """
    steps, symbols = alignment.shape
    found = []
    place = alignment @ np.arange(symbols)
    margin = max(4.0, 0.1 * symbols)
    received = alignment.sum(axis=0)
    reached = place.max() > symbols - 1 - margin
    inner = received[: int(place.max()) + 1]  # what lies beyond is not skipped but left unsaid
    if len(inner) > _WINDOW and np.convolve(inner, np.ones(_WINDOW), "valid").min() < _TOO_LITTLE:
        found.append("skips")
    # Going back alone may be a hesitation at the end; a repeat says again what it went back over.
    fallen = np.maximum.accumulate(place) - place
    back = int(fallen.argmax())
    if fallen[back] > margin and place[back:].max() - place[back] > margin / 2:
        found.append("repeats")
    if not reached:
        found.append("stops early")
    return found


def _row(take: Take) -> dict:
    found = {fault for alignment in take.speech.alignments for fault in faults(np.asarray(alignment))}
    if take.speech.truncated:
        found.add("finds no end")
    return {
        "voice": take.person,
        "said": take.text,
        "characters": len(take.text),
        "pieces": len(take.speech.alignments),
        "seconds": round(take.speech.duration, 2),
        "truncated": take.speech.truncated,
        "faults": [fault for fault in _FAULTS if fault in found],
    }
