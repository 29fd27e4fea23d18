"""Text as people type it -> words -> pieces -> symbols."""

import contextlib
import itertools
import lzma
import random
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from savedmodels import CheckpointError, InputError, write_checkpoint
from synthesizer.text import (
    CHARACTERS,
    PHONES,
    G2PDims,
    LettersToPhones,
    SymbolTable,
    TextFrontEnd,
    clean_characters,
    default_g2p,
    load_lexicon,
    normalise,
    pronounce,
    split,
    to_phones,
)
from synthesizer.text.make_lexicon import make_lexicon
from synthesizer.text.numbers import cardinal, digits, ordinal, roman
from synthesizer.text.split import MAX_CHARACTERS, MIN_CHARACTERS
from synthesizer.text.train_g2p import G2PTask, evaluate

READINGS = {
    # numbers
    "1st 2nd 3rd 12th 21st 100th": "first second third twelfth twenty-first one hundredth",
    "0 7 13 40 101": "zero seven thirteen forty one hundred one",
    "1,234,567": "one million two hundred thirty-four thousand five hundred sixty-seven",
    "3.14 0.5 .5": "three point one four zero point five point five",
    "−5 and -3.5": "minus five and minus three point five",
    "007": "zero zero seven",
    "version 1.2.3": "version one point two point three",
    "1/2, 2/3, 3/4": "one half, two thirds, three quarters",
    "2½ hours, 1 1/2 km": "two and a half hours, one and a half kilometers",
    "pages 3-5": "pages three to five",
    "call 555-123-4567": "call five five five, one two three, four five six seven",
    "Henry VIII and World War II": "Henry the eighth and World War two",
    "a 10-year-old": "a ten-year-old",
    "MP3, F-16, COVID-19": "M P three, F sixteen, COVID nineteen",
    "24/7 since 9/11": "twenty-four seven since nine eleven",
    # years and dates
    "1905 2005 2021": "nineteen oh five two thousand five twenty twenty-one",
    "1900 2000": "nineteen hundred two thousand",
    "the 1990s and the '60s": "the nineteen nineties and the sixties",
    "on 3/4/2021": "on March fourth, twenty twenty-one",
    "31/12/1999": "December thirty-first, nineteen ninety-nine",
    "2021-03-04": "March fourth, twenty twenty-one",
    "March 4, 2021": "March fourth, twenty twenty-one",
    "4 March 2021": "the fourth of March twenty twenty-one",
    "Mon., Dec. 25th": "Monday, December twenty-fifth",
    # times
    "5:30pm": "five thirty P M",
    "17:05": "seventeen oh five",
    "5:00 or 5 o'clock": "five o'clock or five o'clock",
    "at 9 a.m. He left": "at nine A M. He left",
    # money
    "$1,234.56": "one thousand two hundred thirty-four dollars and fifty-six cents",
    "$1 $0.99 $0.01": "one dollar ninety-nine cents one cent",
    "£5.50 and €20": "five pounds and fifty pence and twenty euros",
    "$3 million, $2.5bn": "three million dollars, two point five billion dollars",
    "$5-10": "five to ten dollars",
    "50¢, 5 €, -$5": "fifty cents, five euros, minus five dollars",
    "a $5 bill, a $2 million house": "a five dollar bill, a two million dollar house",
    "5 USD, EUR 2.50, 3 million USD": "five dollars, two euros and fifty cents, three million dollars",
    # units
    "50 %, 5%-10%": "fifty percent, five percent to ten percent",
    "10 km, 1 km, 5km": "ten kilometers, one kilometer, five kilometers",
    "20°C, -5°, 72 °F": "twenty degrees Celsius, minus five degrees, seventy-two degrees Fahrenheit",
    "a 10 km run, 5 km. Then 2 lbs. of": "a ten kilometer run, five kilometers. Then two pounds of",
    "20° in the shade": "twenty degrees in the shade",
    "60 mph, 80 km/h": "sixty miles per hour, eighty kilometers per hour",
    "3.5 GHz and 16 MB": "three point five gigahertz and sixteen megabytes",
    "5 kg, 3 ft, 1 ft": "five kilograms, three feet, one foot",
    "a 5-km run, 20 m²": "a five kilometer run, twenty square meters",
    "$5/month": "five dollars per month",
    "5'10\"": "five foot ten",
    # abbreviations
    "Mr. and Mrs. Lee": "mister and missus Lee",
    "Dr Smith, Prof. X": "doctor Smith, professor X",
    "St. Mary's on Main St. in York": "saint Mary's on Main street in York",
    "12 Elm St. The end": "twelve Elm street. The end",
    "e.g. this, i.e. that": "for example this, that is that",
    "cats, dogs, etc.": "cats, dogs, et cetera.",
    "No. 5 vs. approx. 6": "number five versus approximately six",
    "J. K. Rowling, J.R.R. Tolkien": "J K Rowling, J R R Tolkien",
    "Plan B. Then C.": "Plan B. Then C.",
    "in the U.S. Army": "in the U S Army",
    "the FBI, NASA and HTML": "the F B I, NASA and H T M L",
    "the US told us": "the U S told us",
    "CDs": "C D's",
    "TELL US NOW": "TELL US NOW",
    "R&D at AT&T": "R and D at A T and T",
    # symbols
    "salt & pepper + 1 = #1": "salt and pepper plus one equals number one",
    "and/or w/ C++": "and or with C plus plus",
    "john.doe@example.com": "john dot doe at example dot com",
    "see https://www.example.com/a?b=1.": ("see W W W dot example dot com slash a question mark b equals one."),
    "visit example.co.uk!": "visit example dot C O dot U K!",
    "1920x1080, 3x": "nineteen twenty by one thousand eighty, three times",
    "JavaScript, PyTorch": "JavaScript, Py Torch",
    "**bold** _under_": "bold under",
    "<script> {AH0}": "script (AH zero)",
    # form
    "naïve “café” — it’s": 'naive "cafe", it\'s',
    "What?!! No!!! Wait...": "What? No! Wait.",
    "one\ntwo\n\nthree": "one two\nthree",
    "list:\n- milk\n- eggs": "list, milk, eggs",
    "\x00\x07hi \x1bthere": "hi there",
    "so\u200bft\u00ad hy\u202ephen\ud800": "soft hyphen",
    "Dr. Smith paid $1,234.56 on 3/4/2021 at 5:30pm": (
        "doctor Smith paid one thousand two hundred thirty-four dollars and fifty-six cents "
        "on March fourth, twenty twenty-one at five thirty P M"
    ),
}


@pytest.mark.parametrize("text", READINGS)
def test_text_is_read_as_a_reader_would(text):
    assert normalise(text) == READINGS[text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mrs. Smith", "misess smith"),
        ("Dr. Lee  of St. Ives", "doctor lee of saint ives"),
        ("$1,234.56", "twelve thirty-four dollars, fifty-six cents"),
        ("12,345", "twelve thousand, three hundred forty-five"),
        ("£20 in 1905", "twenty pounds in nineteen oh five"),
        ("2005 2000 1500", "two thousand five two thousand fifteen hundred"),
        ("3.14 21st", "three point fourteen twenty-first"),
        ("Café!", "cafe!"),
    ],
)
def test_published_cleaner(text, expected):
    assert clean_characters(text) == expected


def test_cardinals_have_36_digits_at_most():
    assert digits("007") == "zero zero seven"
    assert cardinal("9" * 36).endswith("nine hundred ninety-nine")
    assert cardinal("9" * 37) == " ".join(["nine"] * 37)
    assert cardinal("1" + "0" * 33) == "one decillion"
    assert ordinal("1000") == "one thousandth"
    assert [roman(n) for n in ("IV", "XXXIX", "IIII", "VX", "")] == [4, 39, None, None, None]


@pytest.mark.parametrize("clean", [normalise, clean_characters])
@pytest.mark.parametrize(
    "text",
    ["", "   ", "\t\n", "\u200b", "...!!!???", "😀👍", "a" * 1_000_000, "漢" * 10_000, None, 123, ["a"]],
    ids=lambda text: repr(text)[:12],
)
def test_what_cannot_be_spoken_is_refused(clean, text):
    with pytest.raises(InputError) as error:
        clean(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("unit", ["9", "1 ", "a.", "A.", "1-", "a@", "www.", "(", "9,999", "'", "aA", "St. "])
@pytest.mark.parametrize("clean", [normalise, clean_characters])
@pytest.mark.timeout(60)  # what takes exponential time has no end
def test_repetition_takes_no_long_time(clean, unit):
    with contextlib.suppress(InputError):
        clean(unit * (5_000 // len(unit)))


def test_other_scripts_are_transliterated_with_a_warning(caplog):
    assert normalise("Привет") == "Privet"
    [record] = caplog.records
    assert record.levelname == "WARNING" and "only English" in record.getMessage()


def test_words_alone_need_no_slow_import(monkeypatch):
    monkeypatch.setattr("synthesizer.text.numbers._engine", None)
    assert normalise("Dr. Lee is in.") == "doctor Lee is in."


@settings(max_examples=80, deadline=None)
@given(
    st.text(max_size=80)
    | st.text(alphabet=string.printable + "£€°½–’", max_size=80)
    | st.builds(str.__mul__, st.text(alphabet="aZ1'\"(-. ,!\n", min_size=1, max_size=6), st.integers(1, 200))
)
def test_any_text_is_spoken_or_refused(text):
    front = TextFrontEnd("phones", PHONES.symbols, default_g2p())
    try:
        pieces = front.pieces(text)
    except InputError:
        return
    assert pieces
    for piece in pieces:
        assert set(piece.text) <= set(string.ascii_letters + "!'\"(),-.:;? ")
        assert piece.text == piece.text.strip() and len(piece.text) <= MAX_CHARACTERS
        *spoken, mark, end = (PHONES.symbols[i] for i in front.encode(piece.text))
        assert spoken and mark in "!,.:;?" and end == "~"


def _random_text(seed: int) -> str:
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoin", k=rng.randint(1, 12))) for _ in range(rng.randint(1, 300))]
    return " ".join(word + rng.choice(["", "", "", "", ",", ".", "!", ";", " and"]) for word in words)


@pytest.mark.parametrize("seed", range(40))
def test_pieces_are_the_text_and_of_speakable_length(seed):
    text = _random_text(seed)
    pieces = split(text)
    assert " ".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= MAX_CHARACTERS for piece in pieces)
    if len(text) >= MIN_CHARACTERS:
        assert all(len(piece.text) >= MIN_CHARACTERS for piece in pieces)
    assert [piece.pause for piece in pieces].count("paragraph") == 1 and pieces[-1].pause == "paragraph"


def test_pieces_end_where_a_speaker_pauses():
    text = (
        "The storm had passed by noon. When the sea was calm again, and the boats lay safe in the harbour, "
        "the children ran down to the beach; nobody called them back!\nThey stayed until dark."
    )
    assert [(piece.text[-10:], piece.pause) for piece in split(text)] == [
        ("d by noon.", "sentence"),
        ("e harbour,", "clause"),
        ("them back!", "paragraph"),
        ("ntil dark.", "paragraph"),
    ]


def test_one_giant_word_is_cut():
    pieces = split("x" * 5_000)
    assert "".join(piece.text for piece in pieces) == "x" * 5_000
    assert all(100 <= len(piece.text) <= MAX_CHARACTERS for piece in pieces)


def test_published_symbols():
    assert len(CHARACTERS.symbols) == 66
    assert CHARACTERS.symbols[:2] == ("_", "~")
    assert CHARACTERS.encode("AZaz!? ") == [2, 27, 28, 53, 54, 64, 65, 1]
    assert CHARACTERS.encode("a_~é{b") == [28, 29, 1]


def test_phone_symbols():
    assert len(PHONES.symbols) == 2 + 69 + 1 + 11
    assert PHONES.encode([]) == [1]
    with pytest.raises(ValueError, match="XX"):
        PHONES.encode(["AA1", "XX"])


@pytest.mark.parametrize("symbols", [("a", "b"), ("_", "~", "a", "a")])
def test_a_wrong_symbol_table_is_refused(symbols):
    with pytest.raises(ValueError):
        SymbolTable(symbols, "characters")


def test_lexicon_holds_cmudict_in_its_order():
    lexicon = load_lexicon()
    assert len(lexicon) > 125_000
    assert list(lexicon)[:2] == ["'bout", "'cause"]
    assert {phone for phones in lexicon.values() for phone in phones} < set(PHONES.symbols)


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("Hello", "HH AH0 L OW1"),
        ("cat's", "K AE1 T S"),
        ("dogs'", "D AO1 G Z"),
        ("well-known", "W EH1 L N OW1 N"),
        ("tweeting", "T W IY1 T IH0 NG"),
        ("unfriended", "AH0 N F R EH1 N D IH0 D"),
        ("hackin'", "HH AE1 K IH0 N"),
        ("unfriended's", "AH0 N F R EH1 N D IH0 D Z"),
        ("blorptastic", None),
        ("re" * 30 + "zq" + "'s" * 30, None),
        ("'", None),
    ],
)
def test_lexicon_knows_forms_of_its_words(word, phones):
    found = load_lexicon().lookup(word)
    assert (" ".join(found) if found else None) == phones


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("Hello, world!", "HH AH0 L OW1 ,   W ER1 L D !"),
        ("the apple", "DH IY0   AE1 P AH0 L"),
        ("the dog", "DH AH0   D AO1 G"),
        ("A dog", "AH0   D AO1 G"),
        ("plan A.", "P L AE1 N   EY1 ."),
        ("cats (a)", "K AE1 T S ,   AH0 ,"),
        ("cats (a).", "K AE1 T S ,   AH0 ."),
        ("A-list", "EY1 L IH1 S T"),
        ("A M", "EY1   EH1 M"),
        ("xqz", "EH1 K S K Y UW1 Z IY1"),
    ],
)
def test_phones(text, phones):
    assert " ".join(to_phones(text)) == phones


def test_fallback_learns(tmp_path):
    words = ["".join(w) for w in itertools.product("bdfgklmnpst", "ao", "bdkl")]
    lexicon = {w: (w[0].upper(), "AA1" if w[1] == "a" else "OW1", w[2].upper()) for w in words}
    torch.manual_seed(0)
    task = G2PTask(LettersToPhones(G2PDims(embedding=8, hidden=16, layers=1)), lexicon, batch_size=16)
    assert sorted(task.words + task.held_out) == sorted(words) and task.held_out
    assert list(task.batches(0, seed=1)) == list(task.batches(0, seed=1)) != list(task.batches(1, seed=1))
    before = evaluate(task.module, task.held_out, lexicon)
    optimizer = torch.optim.Adam(task.module.parameters(), lr=2e-2)
    for epoch in range(15):
        for batch in task.batches(epoch, seed=0):
            loss, parts = task.loss(batch, progress=0.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert parts["ctc"] == loss
    after = evaluate(task.module, task.held_out, lexicon)
    assert after.words == len(task.held_out)
    assert after.phone_error_without_stress <= after.phone_error < before.phone_error / 2
    write_checkpoint(tmp_path / "g2p.safetensors", task.module)
    model = LettersToPhones.from_checkpoint(tmp_path / "g2p.safetensors")
    assert model.pronounce("Bad") == model.pronounce("bad") == task.module.pronounce("bad")
    assert model.pronounce("") == model.pronounce("123") == ()


def test_lexicon_is_made_from_cmudict(tmp_path):
    (tmp_path / "cmudict.dict").write_text("a AH0\na(2) EY1\na.m. EY2 EH1 M\nzed Z EH1 D # British\n")
    make_lexicon(tmp_path / "cmudict.dict", tmp_path / "out.xz")
    assert lzma.decompress((tmp_path / "out.xz").read_bytes()) == b"a AH0\nzed Z EH1 D\n"


def test_fallback_refuses_another_network(tmp_path):
    model = LettersToPhones(G2PDims(hidden=4))
    write_checkpoint(tmp_path / "m.safetensors", model)
    cut = (tmp_path / "m.safetensors").read_bytes()[:-10]
    (tmp_path / "cut.safetensors").write_bytes(cut)
    for name in ("cut.safetensors", "missing.safetensors"):
        with pytest.raises(CheckpointError):
            LettersToPhones.from_checkpoint(tmp_path / name)


def test_default_fallback_guesses_new_words():
    g2p = default_g2p()
    assert " ".join(pronounce("chatbot", g2p)) == "CH AE1 T B AA2 T"
    assert len(pronounce("x" * 60 + "a", g2p)) > 10


def test_front_end_hides_the_spelling():
    text = "Dr. Smith paid $5."
    characters = TextFrontEnd("characters", CHARACTERS.symbols)
    phones = TextFrontEnd("phones", list(PHONES.symbols))
    [a], [b] = characters.pieces(text), phones.pieces(text)
    assert a.text == "doctor smith paid five dollars." and a.pause == b.pause == "paragraph"
    assert characters.encode(a.text) == CHARACTERS.encode(a.text)
    assert phones.encode(b.text) == PHONES.encode(to_phones(b.text))
    with pytest.raises(ValueError):
        TextFrontEnd("runes", CHARACTERS.symbols)
    with pytest.raises(ValueError, match="AA1"):
        TextFrontEnd("phones", [symbol for symbol in PHONES.symbols if symbol != "AA1"])


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("Hi", "."),
        ('Where are "you"', "."),
        ('Are you (there)?\n\nNo "', "?."),
        ("as the boat lay in the harbour " * 5, ",."),
        ("x" * 200, ".."),
    ],
)
def test_every_piece_ends_in_a_mark(text, marks):
    front = TextFrontEnd("phones", PHONES.symbols)
    assert "".join(PHONES.symbols[front.encode(piece.text)[-2]] for piece in front.pieces(text)) == marks
