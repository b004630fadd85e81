"""Where sentences end, decided from two neighbouring words.

No language is asked for, because a stream often does not know its own: the abbreviations of
several languages are one list, and rules do the rest. A sentence end that is missed puts two
sentences into one caption; one that is invented cuts "Mr. Smith" in two. So a doubt means no
end, and a pause ends a line in any case.

The list is a selection, for speech, from the sentence break suppressions of the Unicode CLDR
(segments/*.xml: de, en, es, fr, it, pt, ru), with titles of Dutch, Polish and Czech.
"""

import re

__all__ = ["ends_sentence", "is_abbreviation"]

CLOSERS = "\"'”’»›)]}」』）】》〉"
_OPENERS = "\"'“‘„‚«‹([{¿¡"
_STOPS = ".…"
_ENDS = frozenset("!?。！？｡؟۔।॥።։။។")

_LISTED = {
    "English": "mr mrs ms mx messrs dr prof st mt rev Hon Gen Col Maj capt cmdr lt sgt cpl pvt Adm "
    "Gov Sen Rep Pres supt jr Ph vs approx ca cf viz No Nos",
    "German": "hr hrn frl Fr dipl ing bzw vgl ggf evtl inkl exkl zzgl sog geb gest Chr Mio Mrd Tsd",
    "French": "mme mmes mlle mlles mgr MM ste av apr env",
    "Spanish": "sr sra sres srta dra dña lic ud uds avda sto sta ej",
    "Portuguese": "srs drs dras profa exmo exma ilmo ilma",
    "Italian": "sig sigg dott avv geom rag cfr",
    "Russian": "проф акад тов ул им см",
    "Dutch, Polish, Czech": "dhr mevr bijv inż św hab tzw tzn np např tzv MUDr JUDr",
    # Many of these are words as well: they count before a number only.
    "numbered": "no nos nr n nº num núm p pp pag pág s fig abb vol bd ch chap cap kap sec art abs "
    "par str tel al blz č стр гл рис",
    "months": "jan janv feb févr fev mar apr avr abr ene mai may jun jul juil aug ago sep sept set "
    "oct okt out nov dec dez déc dic янв февр апр авг сент окт нояб дек",
}
# Written in small letters, an entry stands for the capitalised form, too.
_BEFORE_NUMBERS = frozenset(f"{_LISTED.pop('numbered')} {_LISTED.pop('months')}".split())
_ABBREVIATIONS = frozenset(" ".join(_LISTED.values()).split())
_ROMAN = re.compile(r"[IVX]{2,5}")


def ends_sentence(text: str, following: str) -> bool:
    """Whether a sentence ends with ``text``, if ``following`` comes next without a pause.

    Args:
        text: what was said in this line or caption, up to the end of a word.
        following: the next word, or its beginning.
    """
    text = text.rstrip().rstrip(CLOSERS)
    if not text or text[-1] not in _STOPS:
        return text[-1:] in _ENDS
    if _first(following).islower() and not text.islower():
        return False  # in a text with capitals, a sentence begins with one
    return not is_abbreviation(text, following)


def is_abbreviation(text: str, following: str) -> bool:
    """Whether the last word of ``text`` ends in a full stop that belongs to the word.

    So does that of initials ("J."), letters with stops between them ("U.S.", "z.B."),
    ordinals of one or two digits ("3. Mai"), Roman numerals, and the listed abbreviations.
    """
    word = text.split()[-1] if text.strip() else ""
    word = word.rstrip(CLOSERS).lstrip(_OPENERS)
    if not word.endswith(".") or word.endswith(".."):
        return False
    stem = word[:-1]
    if stem.isdecimal():
        return len(stem) <= 2
    parts = re.split(r"[.\-–'’]+", stem)
    if not all(part.isalpha() for part in parts):
        return False
    if len(parts) > 1 and "." in stem and all(len(part) <= 3 for part in parts):
        return True
    last = parts[-1]
    small = last[:1].lower() + last[1:]
    return (
        len(last) == 1
        or _ROMAN.fullmatch(last) is not None
        or bool(_ABBREVIATIONS & {last, small})
        or (small in _BEFORE_NUMBERS and _first(following).isdecimal())
    )


def _first(text: str) -> str:
    """The first letter or digit of a text; empty if there is none."""
    return next((character for character in text if character.isalnum()), "")
