"""How long it takes."""

from collections.abc import Sequence

import numpy as np

from .figures import Section, estimate, median, ratio
from .takes import Take


def measure(takes: Sequence[Take], face_seconds: Sequence[float]) -> Section:
    """Real-time factors by stage: time taken over sound made, 1 being as fast as it is spoken.

    Args:
        face_seconds: time that each photo took to become a voice.
    """
    lengths = np.array([take.speech.duration for take in takes])
    stages = sorted({stage for take in takes for stage in take.speech.seconds})
    spent = {stage: np.array([take.speech.seconds.get(stage, 0.0) for take in takes]) for stage in stages}
    total = sum(spent.values(), np.zeros(len(takes)))
    figures = {
        "real_time_factor": estimate(
            lambda i: float(np.median(total[i] / lengths[i])), len(takes), "sentences, their median"
        )
    }
    for stage in stages:
        figures[f"real_time_factor_{stage}"] = ratio(spent[stage], lengths, of="sentences")
    figures["photo_to_voice"] = median(face_seconds[1:] or face_seconds, "photos, their median", unit="s")
    return Section(figures, notes=["Measured while the machine was as busy as its load, above, tells."])
