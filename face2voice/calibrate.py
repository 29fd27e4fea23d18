"""Fits a bundle's calibration: what its face encoder answers -> the voices its synthesizer knows."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from encoder.calibration import Calibration
from encoder.speech_model import unit
from savedmodels import InputError, find_bundle, read_checkpoint, write_checkpoint
from savedmodels.bundles import FILES, MANIFEST

from .corpora import Utterance
from .likeness import Result, chance, likeness, mean_voice
from .preprocess import Unusable, find_maker

_MEASURED = 0.2  # share of the speakers
_FEWEST = 10  # speakers


def calibrate(
    bundle: str | Path,
    utterances: Iterable[Utterance],
    legacy_targets: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] = lambda heard: None,
) -> Result:
    """Writes a calibration into a bundle whose face encoder learned voices of Lip2Speech's front-end.

    Every clip is embedded twice by the bundle's speech encoder, behind that front-end and behind the
    true one; the calibration takes the one to the other. One speaker in five is held out and measured.

    Args:
        bundle: a name, or a folder laid out like one.
        utterances: clips of ten speakers or more; faces are not looked at.
        legacy_targets: the face encoder is no published one, but was trained with ``--legacy-targets``.
        seed: of who is held out.
        progress: called with the number of clips heard so far.

    Returns:
        the figures of held-out speakers: the mean voice of a speaker's clips behind Lip2Speech's
        front-end against that behind the true one.

    Raises:
        InputError: the face encoder was not trained so, or there are too few speakers.
        CheckpointError: no such bundle, or it lacks an encoder.
    """
    found = find_bundle(bundle)
    face_encoder = found.path("face_encoder")
    if not legacy_targets and read_checkpoint(face_encoder).network is not None:
        raise InputError(
            f"{face_encoder}: is no published Lip2Speech file, so it needs no calibration; "
            "if it was trained with --legacy-targets, say so with the same option"
        )
    shifted, true, skipped = _hear(utterances, found.path("speech_encoder"), progress)
    speakers = np.random.default_rng(seed).permutation(sorted(true)).tolist()
    if len(speakers) < _FEWEST:
        raise InputError(f"{len(speakers)} speakers with clips that can be used; give at least {_FEWEST}")
    cut = max(2, round(_MEASURED * len(speakers)))
    measured, learned = speakers[:cut], speakers[cut:]
    calibration = Calibration.fit(*(np.concatenate([voices[name] for name in learned]) for voices in (shifted, true)))

    aim = np.stack([mean_voice(true[name]) for name in measured])
    plain = np.stack([mean_voice(shifted[name]) for name in measured])
    mended = np.stack([mean_voice(calibration(torch.from_numpy(shifted[name])).numpy()) for name in measured])
    path = found.folder / FILES["calibration"][0]
    try:
        write_checkpoint(path, calibration)
        if (found.folder / MANIFEST).is_file():
            found.record()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    held_out = f"{len(measured)} speakers held out"
    notes = (f"fitted on {sum(len(true[name]) for name in learned)} clips of {len(learned)} speakers", *skipped)
    return Result(found.folder, held_out, likeness(plain, aim), likeness(mended, aim), chance(cut), notes)


def _hear(
    utterances: Iterable[Utterance], speech_encoder: Path, progress: Callable[[int], None]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Speaker -> (clips, embedding) behind the one front-end and the other, and what was left out."""
    maker = find_maker("face-encoder", speech_encoder)
    shifted, true, skipped = defaultdict(list), defaultdict(list), Counter()
    for count, utterance in enumerate((one for one in utterances if one.audio), start=1):
        try:
            record = maker.make(dataclasses.replace(utterance, faces=(), video=None), 0)
        except Unusable as unusable:
            skipped[unusable.reason] += 1
            continue
        shifted[utterance.speaker].append(unit(torch.from_numpy(record["legacy_raw"])).numpy())
        true[utterance.speaker].append(record["voice"])
        progress(count)
    notes = [f"{count} clips skipped: {reason}" for reason, count in sorted(skipped.items())]
    stacked = ({name: np.stack(voices) for name, voices in heard.items()} for heard in (shifted, true))
    return *stacked, notes
