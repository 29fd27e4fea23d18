"""Text as people type it -> text as a reader would say it, in letters and punctuation only.

Two ways: `clean_characters` does what the published checkpoints were trained with, `normalise`
reads far more. Both refuse what cannot be spoken with an `InputError`.
"""

import logging
import re
import unicodedata

from unidecode import unidecode

from savedmodels import InputError

from . import numbers, reading

log = logging.getLogger(__name__)

#: Characters of a text that is accepted.
MAX_CHARACTERS = 10_000
#: Characters it may have in words. Digits read one by one become five times as long, honestly;
#: one Arabic ligature can become eighteen letters, and ten thousand of them are no sentence.
MAX_SPOKEN_CHARACTERS = 30_000

# Control, format (zero width, direction), private, unassigned, and lone surrogates.
_SILENT_CATEGORIES = {"Cc", "Cf", "Co", "Cn", "Cs"}
_FOREIGN_SHARE = 0.2

_PUBLISHED_ABBREVIATIONS = {
    "mrs": "misess",  # sic: this is what the published checkpoints heard
    "mr": "mister",
    "dr": "doctor",
    "st": "saint",
    "co": "company",
    "jr": "junior",
    "maj": "major",
    "gen": "general",
    "drs": "doctors",
    "rev": "reverend",
    "lt": "lieutenant",
    "hon": "honorable",
    "sgt": "sergeant",
    "capt": "captain",
    "esq": "esquire",
    "ltd": "limited",
    "col": "colonel",
    "ft": "fort",
}


def clean_characters(text: str) -> str:
    """Lower-case text as the published checkpoints were trained on ("english_cleaners").

    Numbers, ordinals, dollars, pounds and titles with a dot become words; anything else that
    can be written in ASCII stays as it is.

    Raises:
        InputError: no text, too long, or nothing in it can be spoken.
    """
    text = re.sub(r"(?<=\d),(?=\d)", "", _readable(text))
    text = re.sub(r"£(\d+)", r"\1 pounds", text)  # unidecode would write the sign "PS"
    text = unidecode(text).lower()
    text = re.sub(r"\$([\d.]*\d)", _published_dollars, text)
    text = re.sub(numbers.ENDLESS, lambda m: numbers.digits(m[0]), text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"(\d+)(?:st|nd|rd|th)", lambda m: numbers.ordinal(m[1]), text)
    text = re.sub(r"\d+", _published_number, text)
    text = re.sub(r"\b([a-z]+)\.", lambda m: _PUBLISHED_ABBREVIATIONS.get(m[1], m[0]), text)
    return _speakable(re.sub(r"\s+", " ", text).strip())


def _published_dollars(match: re.Match[str]) -> str:
    parts = match[1].split(".")
    if len(parts) > 2:
        return f"{match[1]} dollars"
    amounts = [
        f"{count} {unit}{'' if count == '1' else 's'}"
        for part, unit in zip(parts, ("dollar", "cent"), strict=False)
        if (count := part.lstrip("0"))
    ]
    return ", ".join(amounts) or "zero dollars"


def _published_number(match: re.Match[str]) -> str:
    run = match[0]
    if len(run) == 4 and "1000" < run < "3000" and run != "2000":
        return numbers.year(run)
    return numbers.cardinal(run, comma=",")


def normalise(text: str) -> str:
    """Text as a reader would say it: numbers, dates, money, abbreviations and symbols as words.

    The result holds ASCII letters (case is kept: a single capital is a letter's name), the
    punctuation ``! ' " ( ) , - . : ; ?``, single spaces, and a newline between paragraphs.
    Scripts other than Latin are transliterated, with a logged warning, for it is seldom good.

    Raises:
        InputError: no text, longer than `MAX_CHARACTERS` (in words: `MAX_SPOKEN_CHARACTERS`), or
            nothing in it can be spoken.
    """
    text = _readable(text)
    _warn_of_other_scripts(text)
    text = unidecode(reading.name_signs(text))
    if len(text) > MAX_SPOKEN_CHARACTERS:
        raise _too_long(MAX_SPOKEN_CHARACTERS, "in words")
    paragraphs = (reading.read_aloud(paragraph) for paragraph in re.split(r"\n\s*\n", text))
    return _speakable("\n".join(filter(None, paragraphs)))


def _readable(text: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"text must be a string, not {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise _too_long(MAX_CHARACTERS)
    text = unicodedata.normalize("NFC", text)
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in _SILENT_CATEGORIES)
    text = re.sub(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", text)
    if not text.strip():
        raise InputError("the text is empty: give a sentence to say")
    return text


def _speakable(text: str) -> str:
    if not any(c.isalpha() for c in text):
        raise InputError("nothing to say: the text has no letter or digit")
    if len(text) > MAX_SPOKEN_CHARACTERS:
        raise _too_long(MAX_SPOKEN_CHARACTERS, "in words")
    return text


def _too_long(limit: int, form: str = "") -> InputError:
    return InputError(f"the text is too long: more than {limit:,} characters {form}".strip() + "; split it")


def _warn_of_other_scripts(text: str) -> None:
    letters = [c for c in text if c.isalpha()]
    foreign = sum(not (c.isascii() or unicodedata.name(c, "").startswith("LATIN")) for c in letters)
    if foreign > _FOREIGN_SHARE * len(letters):
        log.warning("only English is spoken: text in another script is transliterated")
