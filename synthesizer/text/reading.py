"""The rules by which `clean.normalise` reads numbers, dates, money, units and abbreviations.

They are applied in an order that matters: what is recognised by more of its surroundings (an
e-mail address, a date) goes before what is recognised by less (a number). No pattern may look
far from every position: a text has thousands of characters, and they may all be the same.
"""

import re
from collections.abc import Callable, Iterable

from . import numbers
from .lexicon import LETTER_NAMES, load_lexicon
from .numbers import cardinal, digits, ordinal, plural

Match = re.Match[str]
Replacement = str | Callable[[Match], str]


def _table(text: str) -> dict[str, str]:
    """Entries "key|key words", parted by two spaces or a new line."""
    entries = (entry.split(" ", 1) for entry in re.split(r"\s{2,}", text.strip()))
    return {key: words for keys, words in entries for key in keys.split("|")}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


# Signs that unidecode would lose pass it as control characters, which no text still has by then.
_POUND, _EURO, _YEN, _DEGREE, _CENT = "\x01\x02\x03\x04\x05"
_SIGNS = _table("""
    × times  ÷ divided by  ± plus or minus  ≤ at most  ≥ at least  ≠ is not equal to
    ≈ about  → to  © copyright  § section  ‰ per mille
""")
_SIGN_NAMES = str.maketrans(
    dict(zip("£€¥°¢²³µμ—―", [_POUND, _EURO, _YEN, _DEGREE, _CENT, "^2", "^3", "u", "u", ", ", ", "], strict=True))
    | {sign: f" {name} " for sign, name in _SIGNS.items()}
    | dict.fromkeys("•·™®¡¿", " ")
)


def name_signs(text: str) -> str:
    """`text` with the signs that have no ASCII form named; some as control characters."""
    return text.translate(_SIGN_NAMES)


_NUMBER = r"(?:(?<!\d)(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\d)|(?<![\w.])\.\d+)"
_SCALES = _table("k thousand  m|mn million  b|bn billion  t|tn trillion")
_SCALE = r"(?i:k|mn?|bn?|tn?|thousand|million|billion|trillion)"


def _spoken(number: str) -> str:
    """A number as written, with commas and a decimal point if any, in words."""
    whole, point, fraction = number.replace(",", "").partition(".")
    # A leading zero is that of a code, not of a count.
    words = digits(whole) if len(whole) > 1 and whole[0] == "0" else cardinal(whole) if whole else ""
    return f"{words} point {digits(fraction)}".strip() if point else words


_SENTENCE_STARTS = re.compile(r"[\"')]*(?:\s*$|\s+[\"'(]*[A-Z])")


def _closing_dot(match: Match) -> str:
    """The dot of an abbreviation, if it ends a sentence too."""
    return "." if match[0].endswith(".") and _SENTENCE_STARTS.match(match.string, match.end()) else ""


# --- addresses ----------------------------------------------------------------------------------

_ADDRESS_SIGNS = _table("""
    . dot  / slash  - dash  _ underscore  @ at  ? question mark  = equals
    & and  # hash  : colon  ~ tilde  % percent  + plus
""")
_DOMAINS = "com|org|net|edu|gov|info|io|ai|eu|uk|us|de|fr|ca|tv"


def _address(match: Match) -> str:
    address = re.sub(r"(?i)^https?://", "", match[0])
    bare = address.rstrip(".,;:!?)'/")
    closing = address[len(bare) :].replace("/", "")
    bare = re.sub(r"(?i)\b(?:www|(?<=\.)[a-z]{2}(?![\w-]))", lambda m: " ".join(m[0].upper()), bare)
    return re.sub(r"[^\w\s]|_", lambda m: f" {_ADDRESS_SIGNS.get(m[0], '')} ", bare) + closing


# --- dates and times ----------------------------------------------------------------------------

_MONTHS = "January February March April May June July August September October November December".split()
_MONTH = "|".join([*_MONTHS, "Sept", *(name[:3] for name in _MONTHS)])
_DAYS = _table("""
    Mon Monday  Tue|Tues Tuesday  Wed Wednesday  Thu|Thur|Thurs Thursday  Fri Friday  Sat Saturday  Sun Sunday
""")
_ORDINAL_ENDING = r"(?i:st|nd|rd|th)"


def _month_name(name: str) -> str:
    return next(month for month in _MONTHS if month.startswith(name[:3]))


def _date(whole: str, month: int, day: int, year: str) -> str:
    if month > 12 >= day:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return whole
    if len(year) == 2:
        year = ("20" if year < "50" else "19") + year
    return f"{_MONTHS[month - 1]} {ordinal(str(day))}, {numbers.year(year)}"


def _month_day(match: Match) -> str:
    month, day, last_day, year = match.groups()
    words = f"{_month_name(month)} {ordinal(day)}"
    if last_day:
        words += f" to {ordinal(last_day)}"
    return words + (f", {numbers.year(year)}" if year else "")


def _day_month(match: Match) -> str:
    day, month, year = match.groups()
    return f"the {ordinal(day)} of {_month_name(month)}" + (f" {numbers.year(year)}" if year else "")


def _time(match: Match) -> str:
    hour, minute, second, half = match.groups()
    if not (minute or half) or int(hour) > 24 or int(minute or 0) > 59:
        return match[0]
    words = cardinal(hour)
    if second:
        words += f" {cardinal(minute)} and {cardinal(second)} seconds"
    elif minute and minute != "00":
        words += f" {'oh ' if minute < '10' else ''}{cardinal(minute)}"
    elif not half:
        words += " o'clock" if int(hour) <= 12 else " hundred"
    return f"{words} {half[0].upper()} M{_closing_dot(match)}" if half else words


# --- money, units and other numbers -------------------------------------------------------------

_CURRENCIES = _table(f"$|USD dollar  {_POUND}|GBP pound  {_EURO}|EUR euro  {_YEN}|JPY yen")
_CURRENCY = rf"(?:[${_POUND}{_EURO}{_YEN}]|(?<![A-Za-z])(?:USD|GBP|EUR|JPY))"
_CENTS = {"dollar": "cent", "pound": "penny", "euro": "cent", "yen": "sen"}
# What stands between an article and a noun is no plural: "a $5 bill".
_ARTICLE = r"(?:\b(?P<article>[Aa]n? ))?"


def _counted(number: str, name: str, singular: object = None) -> str:
    return f"{_spoken(number)} {name if singular or number == '1' else plural(name)}"


def _money(match: Match) -> str:
    groups = match.groupdict("")
    article, amount, upper, scale = (groups.get(name, "") for name in ("article", "amount", "upper", "scale"))
    unit = _CURRENCIES[groups["sign"]]
    whole, _, fraction = amount.replace(",", "").partition(".")
    if upper or scale or len(fraction) > 2:
        words = " to ".join(_spoken(number) for number in (amount, upper) if number)
        scale = _SCALES.get(scale.lower(), scale.lower())
        return f"{article}{words} {scale} {unit if article else plural(unit)}"
    amounts = [(whole.lstrip("0"), unit), (fraction.ljust(2, "0").lstrip("0"), _CENTS[unit])]
    parts = [_counted(number, name, article) for number, name in amounts if number]
    return article + (" and ".join(parts) or _counted("0", unit, article))


_UNITS = _table(f"""
    km kilometer  m meter  cm centimeter  mm millimeter  um micrometer  nm nanometer
    ft|ft. foot  yd|yd. yard  mi|mi. mile  km^2|km2 square kilometer  m^2|m2 square meter
    cm^2|cm2 square centimeter  ft^2|ft2|sqft square foot  m^3|m3 cubic meter  cm^3|cm3|cc cubic centimeter
    kg kilogram  g gram  mg milligram  ug|mcg microgram  lb|lbs|lb.|lbs. pound  oz|oz. ounce  l|L liter
    ml|mL milliliter  mph mile per hour  kph|kmh kilometer per hour  h|hr|hrs|hr.|hrs. hour  min|mins minute
    s|sec|secs second  ms millisecond  Hz hertz  kHz|KHz kilohertz  MHz megahertz  GHz gigahertz
    kB|KB kilobyte  MB megabyte  GB gigabyte  TB terabyte
    kbps|Kbps kilobit per second  Mbps megabit per second  Gbps gigabit per second
    W watt  kW kilowatt  MW megawatt  kWh kilowatt hour  V volt  mA milliamp  mAh milliamp hour  dB decibel
    cal calorie  kcal kilocalorie  J joule  kJ kilojoule  kPa kilopascal  psi pound per square inch
    rpm|RPM revolution per minute  fps|FPS frame per second  px pixel  % percent  {_CENT} cent
    {_DEGREE} degree  {_DEGREE}C degree Celsius  {_DEGREE}F degree Fahrenheit
""")
_UNIT = _any_of(_UNITS)
_PER = _table("""
    h|hr|hour hour  s|sec|second second  min|minute minute  d|day day  wk|week week  mo|month month
    yr|year year  l|L liter  kg kilogram  lb pound  gal|gallon gallon  km kilometer  m meter  mi|mile mile
    person person  unit unit
""")


def _unit(match: Match) -> str:
    article, number, joint, unit = match.groups("")
    return article + _counted(number, _UNITS[unit], article or joint == "-") + _closing_dot(match)


def _fraction(match: Match) -> str:
    whole, top, bottom, unit = match.groups("")
    above, below, unit = int(top), int(bottom), _UNITS.get(unit, "")
    units = unit and plural(unit)
    if not 0 < above < below <= 20:
        return f"{whole} {cardinal(top)} over {cardinal(bottom)} {units}"
    part = {2: "half", 4: "quarter"}.get(below) or ordinal(bottom)
    if above > 1:
        part = plural(part)
    if whole:
        return f"{cardinal(whole)} and {'a' if above == 1 else cardinal(top)} {part} {units}"
    return f"{cardinal(top)} {part}{unit and f' of a {unit}'}"


def _decade(match: Match) -> str:
    century, ten = match.groups()
    if century and ten == "00":
        return plural(numbers.year(century + ten))
    return f"{cardinal(century) if century else ''} {plural(cardinal(ten))}"


def _telephone(match: Match) -> str:
    return ", ".join(digits(group) for group in re.findall(r"\d+", match[0]))


# --- abbreviations and acronyms -----------------------------------------------------------------

_TITLES = _table("""
    Mr mister  Mrs missus  Ms miz  Dr doctor  Drs doctors  Prof professor  Rev reverend  Hon honorable
    Gov governor  Sen senator  Rep representative  Pres president  Gen general  Maj major  Col colonel
    Capt captain  Lt lieutenant  Sgt sergeant  Adm admiral  Cmdr commander  St saint  Mt mount  Ft fort
""")
_ABBREVIATIONS = _table("""
    e.g for example  i.e that is  a.k.a also known as  etc et cetera  vs versus  approx approximately
    incl including  excl excluding  misc miscellaneous  dept department  govt government  avg average
    tel telephone  inc incorporated  ltd limited  corp corporation  co company  bros brothers  jr junior
    sr senior  esq esquire  st street  dr drive  ave avenue  blvd boulevard  rd road  hwy highway  ph.d P H D
""")
_BEFORE_NUMBERS = _table("""
    no number  nos numbers  fig figure  figs figures  eq equation  vol volume  ch chapter  sec section
    p page  pp pages  ext extension  c|ca circa
""")
_SHORTHANDS = _table("""
    w/o without  w/ with  and/or and or  c++ C plus plus  c# C sharp
    9/11 nine eleven  24/7 twenty-four seven  50/50 fifty fifty
""")

_STARTERS = (
    "The|Then|He|She|It|We|They|You|This|That|These|Those|There|But|And|So|In|On|At|If|When|What|Why|How|A|I|No|Yes"
)
# Read as letters although the same letters make a word.
_SPELLED = {"AI", "ID", "IT", "OS", "UN", "US"}
_COUNTED = set("War Chapter Part Volume Act Scene Section Book Phase Type Class Title Appendix Article Bowl".split())
_RULERS = set(
    "Henry Louis Charles Edward George James William Richard Elizabeth Mary Philip Pius Paul John Benedict "
    "Leo Gregory Clement Innocent Napoleon Wilhelm Frederick Nicholas Alexander Peter Catherine Gustav "
    "Christian Haakon Olav Harald Ramses Ptolemy Darius Xerxes Francis Ferdinand Alfonso Juan Victoria".split()
)


def _between_names(match: Match) -> str:
    """St. and Dr. are a street's after a name that no other name follows, else a person's title."""
    before, title = match.groups()
    return f"{before}{_ABBREVIATIONS[title.lower()]}{_closing_dot(match)}"


def _abbreviation(match: Match) -> str:
    return _ABBREVIATIONS[match[1].lower()] + _closing_dot(match)


def _roman(match: Match) -> str:
    name, numeral = match.groups()
    value = numbers.roman(numeral)
    if len(numeral) == 1:  # a letter, or the word "I", unless after a name that numbers go with
        ends = match.string[match.end() : match.end() + 1] in ",.:;)"
        known = name == "War" or (name in _COUNTED and ends) if numeral == "I" else name in _COUNTED | _RULERS
        value = value if known else None
    if value is None:
        return match[0]
    return f"{name} the {ordinal(str(value))}" if name in _RULERS else f"{name} {cardinal(str(value))}"


def _dotted(match: Match) -> str:
    # "the U.S. Army": a capital does not show that a sentence begins.
    ends = match[0].endswith(".") and match.end() == len(match.string.rstrip())
    return " ".join(match[0].upper().replace(".", "")) + ("." if ends else "")


_ACRONYM = re.compile(r"\b(?<!')([A-Z]{2,5})('?s)?\b")
_CAPITALS_BEFORE = re.compile(r"\b([A-Z]{2,20}) $")
_CAPITALS_AFTER = re.compile(r" ([A-Z]{2,20})\b")


def _is_spelled(word: str) -> bool:
    phones = load_lexicon().lookup(word)
    if phones:
        names = [phone[:2] for letter in word.lower() for phone in LETTER_NAMES[letter]]
        return [phone[:2] for phone in phones] == names
    # COVID and LASIK read like words; HTML and UCLA do not.
    return len(word) <= 3 or not re.fullmatch(r"[^AEIOUY][AEIOUY](?:[^AEIOUY][AEIOUY]?)+", word)


def _acronym(match: Match) -> str:
    word, ending = match.groups()
    if word in _SPELLED:
        # "TELL US" shouts, "the US FBI" does not.
        before = _CAPITALS_BEFORE.search(match.string, max(0, match.start() - 22), match.start())
        after = _CAPITALS_AFTER.match(match.string, match.end())
        spelled = all(_is_spelled(neighbour[1]) for neighbour in (before, after) if neighbour)
    else:
        spelled = _is_spelled(word)
    return " ".join(word) + ("'s" if ending else "") if spelled else match[0]


def _camel_case(match: Match) -> str:
    if load_lexicon().lookup(match[0]):
        return match[0]
    return re.sub(r"(?<=[a-z])(?=[A-Z])(?<!\bMc)(?<!\bMac)", " ", match[0])


# --- the order ----------------------------------------------------------------------------------


def _rules(*rules: tuple[str, Replacement]) -> list[tuple[re.Pattern[str], Replacement]]:
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


_ADDRESSES_AND_MARKS = _rules(
    (numbers.ENDLESS, lambda m: digits(m[0])),
    (r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+", _address),
    (r"(?i)(?<!\w)(?:https?://|www\.)[^\s<>\"]+", _address),
    (rf"(?<![\w.@-])(?i:(?:[a-z0-9-]{{1,63}}\.){{1,5}}(?:{_DOMAINS}))\b(?![\w@-])(?:/[^\s<>\"]*)?", _address),
    # Dashes, and marks that decorate: rules, emphasis.
    (r" ?--+ ?| - ", ", "),
    (r"(?<!\w)([=#*_~|^@%&$<>-])\1+|([=#*_~|^@%&$<>])\2+(?!\w)", " "),
    (rf"(?i)(?<![\w/])({_any_of(_SHORTHANDS)})(?![\w/])", lambda m: f"{_SHORTHANDS[m[1].lower()]} "),
    # The initials of a name. Done before times, whose "A M." may well end a sentence.
    (rf"(?<![\w.])(?!I\b)([A-Z])\.(?= (?:[A-Z]\. ?)*[A-Z])(?! (?:{_STARTERS})\b)", r"\1"),
)
_FIGURES = _rules(
    # Dates and times.
    (
        r"(?<![\w-])(\d{4})-(\d\d?)-(\d\d?)(?![\d-])(T(?=\d))?",
        lambda m: _date(m[0], int(m[2]), int(m[3]), m[1]) + (" at " if m[4] else ""),
    ),
    (
        r"(?<![\w/])(\d\d?)/(\d\d?)/(\d{4}|\d\d)(?![\d/])",
        lambda m: _date(m[0], int(m[1]), int(m[2]), m[3]),
    ),
    (
        rf"\b({_MONTH})\b\.? (\d\d?)(?!\d)(?:{_ORDINAL_ENDING})?(?:-(\d\d?)(?!\d))?"
        r"(?:,? ((?:1\d|20)\d\d)\b)?(?![:\d])",
        _month_day,
    ),
    (
        rf"(?:\b[Tt]he )?(?<![\d.,:/-])\b(\d\d?)(?:{_ORDINAL_ENDING})?(?: of)? ({_MONTH})\b(?:\.(?= \d))?"
        r"(?:,? ((?:1\d|20)\d\d)\b)?",
        _day_month,
    ),
    (rf"\b({_MONTH})\b\.?(?= \d)", lambda m: _month_name(m[1])),
    (rf"\b({_any_of(_DAYS)})\b\.?(?=,? (?:{_MONTH}|\d))", lambda m: _DAYS[m[1]]),
    (r"(?<![\d:.])(\d\d?)(?::(\d\d)(?::(\d\d))?)?(?: ?((?i:[ap]\.? ?m\b\.?)))?(?![\d:])", _time),
    # Telephone numbers and money.
    (
        r"(?<![\w-])(?:(?:\+?\d{1,2}[-. ])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]|\d{3}-)\d{4}(?![\w-])",
        _telephone,
    ),
    (rf"(?<![\w)%])-(?=[${_POUND}{_EURO}{_YEN}]?\.?\d)", "minus "),
    (
        rf"{_ARTICLE}(?:\b(?:US|A|C|NZ|HK)(?=\$))?(?P<sign>{_CURRENCY}) ?(?P<amount>{_NUMBER})"
        rf"(?:-(?P=sign)?(?P<upper>{_NUMBER}))?(?:[ -]?(?P<scale>{_SCALE})\b)?",
        _money,
    ),
    (rf"{_ARTICLE}(?P<amount>{_NUMBER})(?:[ -]?(?P<scale>{_SCALE}))? ?(?P<sign>{_CURRENCY})(?!\w)", _money),
    # Decades ("1990s" are no seconds), ranges and fractions, then units.
    (r"(?<!\w)'?(\d\d)?(\d0)'?s\b", _decade),
    (r"(?<![\w'])(\d)'(\d\d?)(?:\"|'')(?!\w)", r"\1 foot \2"),
    (rf"(?<![\w.-])({_NUMBER}%?)-({_NUMBER})(?![\d-])", r"\1 to \2"),
    (
        rf"(?<![\d/.,])(?:(\d{{1,3}}) +)?(\d{{1,3}})/(\d{{1,3}})(?![\d/])(?:[ -]?({_UNIT})(?![\w/]))?",
        _fraction,
    ),
    (rf"{_DEGREE} (?=[CF]\b)", _DEGREE),
    (rf"{_ARTICLE}({_NUMBER})([ -]?)({_UNIT})(?!\w)", _unit),
)
_ABBREVIATED = _rules(
    (rf"(?<=[a-z])/({_any_of(_PER)})\b", lambda m: f" per {_PER[m[1]]}"),
    (r"\b([A-Z][a-z]+ )(St|Dr)\.(?:(?! ?[A-Z][a-z])|(?= (?:In|The|It|He|She|We|They|I) ))", _between_names),
    (
        rf"\b(?:(?:{_any_of(_TITLES)})\.(?= ?[A-Z])|(?:Mrs?|Ms|Dr)(?:\.|\b(?= [A-Z]))|St(?= [A-Z]))",
        lambda m: _TITLES[m[0].rstrip(".")],
    ),
    (r"(?i)\bet al\.", lambda m: f"et al{_closing_dot(m)}"),
    (rf"(?i)(?<![\w.])({_any_of(_ABBREVIATIONS)})\.", _abbreviation),
    (rf"(?i)(?<![\w.])({_any_of(_BEFORE_NUMBERS)})\. ?(?=\d)", lambda m: _BEFORE_NUMBERS[m[1].lower()] + " "),
    (r"(?<![\w.])(?:[A-Za-z]\.){2,}(?:[A-Za-z]\b)?", _dotted),
    (r"\b([A-Z][a-z]+) ([IVX]+)\b", _roman),
    (r"\b[A-Z]{1,3}&[A-Z]{1,3}\b", lambda m: " ".join(m[0]).replace("&", "and")),
)
_NUMBERS = _rules(
    (r"(?<!\w)#(?=\d)", "number "),
    (r"(?<!\w)~ ?(?=\d)", "about "),
    (r"(?<=\d):(?=\d)", " to "),
    (r"(?<=\d)-(?=\d)", " "),
    (r"(?<=\d) ?x ?(?=\d)", " by "),
    (r"(?<=\d)x\b", " times"),
    (r"(?<=\d) ?\* ?(?=\d)", " times "),
    (r"(?<=\w) ?\^2\b", " squared"),
    (r"(?<=\w) ?\^3\b", " cubed"),
    (r"(?<=\w) < (?=\w)", " is less than "),
    (r"(?<=\w) > (?=\w)", " is greater than "),
    (
        rf"({_NUMBER}){_ORDINAL_ENDING}\b",
        lambda m: ordinal(m[1].replace(",", "")) if "." not in m[1] else m[0],
    ),
    (r"\d+(?:\.\d+){2,}", lambda m: " point ".join(map(cardinal, m[0].split(".")))),
    (r"(?<=[A-Za-z])-?(?=\d)|(?<=\d)(?=[A-Za-z])", " "),
    (r"(?<![\d.,])(?:1[1-9]|20)\d\d(?![\d])(?![.,]\d)", lambda m: numbers.year(m[0])),
    (_NUMBER, lambda m: f" {_spoken(m[0])} " if m[0][0] == "." else _spoken(m[0])),
    (r"\d+", lambda m: f" {digits(m[0])} "),
)
_LONE_SIGNS = _table(f"""
    @ at  & and  % percent  + plus  = equals  $ dollars  {_POUND} pounds  {_EURO} euros  {_DEGREE} degrees
""")
_REST = _rules(
    (r"(?<!\w)#(?=[A-Za-z])", "hashtag "),
    (r"\b[A-Za-z]*[a-z][A-Z][A-Za-z]*\b", _camel_case),
    (r"(?<=[a-z])\.(?=[a-z])", " dot "),
    (r"(?<=\w)([.!?,;:])(?=[A-Za-z])", r"\1 "),
    (r"(?<=\w)/(?=\w)", " slash "),
    (rf"[{''.join(_LONE_SIGNS)}]", lambda m: f" {_LONE_SIGNS[m[0]]} "),
)

_TIDYING = _rules(
    (r"[\[{]", "("),
    (r"[\]}]", ")"),
    (r"''|``", '"'),
    (r"\|", ","),
    (r"[^A-Za-z!'\"(),\-.:;? ]", " "),
    (r"(?<![A-Za-z])-+|-+(?![A-Za-z])", " "),
    (r"\.{2,}(?= +[a-z])", ","),
    (r"[.!?][.!? ]*[.!?]", lambda m: "?" if "?" in m[0] else "!" if "!" in m[0] else "."),
    (r"\( *\)", " "),
    (r" +(?=[,.:;!?)])|(?<=\() +", ""),
    (r"[,:;][,:; ]*(?=[,:;.!?])|(?<=[.!?])[ ,;:]*[,;:]", ""),
    (r"^[ ,.:;!?]+|[ ,]+$", ""),
    (r" {2,}", " "),
)


def read_aloud(paragraph: str) -> str:
    """One paragraph of ASCII (and named signs) in words: letters, punctuation and single spaces."""
    text = re.sub(r"^\s*[-*]\s", "", paragraph)
    text = re.sub(r"\n\s*[-*]\s", ", ", text)  # the items of a list
    text = re.sub(r"\s+", " ", text).strip()
    text = _apply(_ADDRESSES_AND_MARKS, text)
    if re.search(r"\d", text):
        text = _apply(_FIGURES, text)
    text = _apply(_ABBREVIATED, text)
    if re.search(r"\d", text):
        text = _apply(_NUMBERS, text)
    text = re.sub(r"\s+", " ", _apply(_REST, text))
    text = _ACRONYM.sub(_acronym, text)
    return _apply(_TIDYING, text)


def _apply(rules: list[tuple[re.Pattern[str], Replacement]], text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text
