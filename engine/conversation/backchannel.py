"""What a few recognised words tell about whose turn it is: a back-channel, or a clause that is (not yet) complete.

Place in the flow: transcripts so far -> ``is_backchannel``, ``completeness`` -> TurnTaker.

Invariants:
    * written for text with or without punctuation and capitals: recognisers differ;
    * a language without word lists is judged by its punctuation and by hums alone.
"""

from __future__ import annotations

import enum
import functools
import re
import unicodedata
from dataclasses import dataclass


class Completeness(enum.Enum):
    """How finished the words of a turn sound."""

    COMPLETE = "complete"
    """Ends as a sentence does: nobody would expect more."""
    LIKELY = "likely"
    """No full stop, but no word that must be followed by another either."""
    INCOMPLETE = "incomplete"
    """Ends in a conjunction, an article, a filler, a comma …: more is about to come."""
    UNKNOWN = "unknown"
    """No words yet, or no list for the language."""


@dataclass(frozen=True, slots=True)
class _Words:
    """One language.

    Attributes:
        backchannels: what listeners say without wanting the floor. Words that object or ask ("no", "what", "wait")
            are left out on purpose.
        hanging: words and short phrases after which a clause goes on. Prepositions that often end a question
            ("what is it for") are left out.
        spaced: whether words are parted by spaces.
    """

    backchannels: tuple[str, ...]
    hanging: tuple[str, ...]
    spaced: bool = True


def _list(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",") if word.strip())


_LANGUAGES = {
    "en": _Words(
        _list("""yeah, yes, yep, yup, ya, ok, okay, right, alright, all right, sure, i see, i know, got it,
            gotcha, of course, exactly, true, indeed, really, oh, ooh, wow, cool, nice, great, good, fine,
            makes sense, oh yeah, very good, very nice, absolutely, definitely, totally, interesting, go on,
            fair enough"""),
        _list("""and, or, but, nor, because, cause, so, if, when, while, until, unless, although, though,
            than, as, which, whether, the, a, an, my, your, our, their, its, this is, of, to, into, um, umm, uh,
            uhm, er, erm, hmm, hm, mm, you know, i mean, kind of, sort of, i, i'm, i'll, i'd, i've, it's, he's,
            she's, we're, they're, you're, there's, let's, is a, every, very, gonna, wanna, can you, could you"""),
    ),
    "de": _Words(
        _list("""ja, jaja, jo, jep, ok, okay, genau, stimmt, richtig, klar, gut, sehr gut, alles klar,
            ach so, achso, aha, verstehe, ich verstehe, ich weiß, in ordnung, eben, oh, wow, natürlich, sicher,
            echt, super, prima, schön, na klar, absolut, weiter"""),
        _list("""und, oder, aber, weil, dass, wenn, ob, sondern, als, obwohl, damit, während, bevor, nachdem,
            der, die, den, dem, des, ein, eine, einen, einem, einer, eines, mein, meine, meinen, dein, deine,
            deinen, unser, unsere, kein, keine, keinen, im, am, vom, zum, zur, beim, ins, ans, für, von, in,
            bei, äh, ähm, öh, öhm, hm, also, sehr, sozusagen, quasi, ich möchte, ich will, kannst du, können sie"""),
    ),
    "fr": _Words(
        _list("""oui, ouais, ok, okay, d'accord, bien, bien sûr, très bien, voilà, c'est ça, exact,
            exactement, ah, ah oui, ah bon, oh, je vois, je sais, je comprends, tout à fait, bon, super,
            vraiment, certes, effectivement, compris, entendu, génial, d'acc, mais oui"""),
        _list("""et, ou, mais, donc, car, parce que, puisque, que, si, quand, lorsque, comme, le, la, les,
            l', un, une, des, du, de, d', au, aux, à, mon, ma, mes, ton, ta, tes, son, sa, ses, notre, nos,
            votre, vos, leur, leurs, ce, cet, cette, dans, pour, sur, sans, chez, vers, par, euh, heu, hum, ben,
            bah, alors, enfin, genre, je, j', est-ce que, très, qu', c'est, je voudrais, je veux"""),
    ),
    "es": _Words(
        _list("""sí, si, ya, vale, claro, claro que sí, bien, muy bien, ok, okay, exacto, exactamente,
            entiendo, ya veo, lo sé, de acuerdo, cierto, es verdad, ajá, ah, oh, bueno, perfecto, por supuesto,
            correcto, eso, eso es, genial, ya ya, en serio, guau"""),
        _list("""y, e, o, u, pero, porque, que, si, cuando, mientras, aunque, como, sino, el, la, los, las,
            un, una, unos, unas, de, del, a, al, en, con, por, para, sin, sobre, hasta, desde, mi, mis, tu, tus,
            su, sus, nuestro, nuestra, este, eh, em, pues, o sea, es que, muy, me, te, se, quiero, quisiera"""),
    ),
    "zh": _Words(
        _list("""嗯, 嗯哼, 唔, 哦, 噢, 喔, 啊, 诶, 哎, 对, 对的, 是, 是的, 是啊, 是吗, 好, 好的, 好吧, 行,
            可以, 明白, 明白了, 知道, 知道了, 我知道, 没错, 真的, 真的吗, 当然, 原来如此, 这样啊, 有道理, 懂了,
            了解, 哇, 不错, 太好了"""),
        _list("""和, 跟, 与, 或, 或者, 还是, 但, 但是, 可是, 不过, 因为, 由于, 所以, 如果, 要是, 虽然, 而且,
            并且, 然后, 还有, 以及, 的话, 就是, 那么, 比如, 比如说, 一个, 一种, 我想, 我要, 把, 给, 从, 向,
            对于, 关于, 嗯, 呃, 那"""),
        spaced=False,
    ),
}

_HUM = r"(?>m+h+m*|h+m+|u+h+u+h+|a+h+a+h*|u+h*m+|hu+h|[aou]+h+|m+)"
"""What people hum in any language, hyphens taken out: mhm, hm, uhhuh, aha, um, oh, mm; atomic, so that no text of
nothing but hums can be read in many ways."""

_SENTENCE_ENDS = frozenset(".?!。？！．؟।")
_MORE_FOLLOWS = frozenset(",;:-–—…、，；：")
_CLOSING = "\"'”’»)]}」』）"
_STILL_OPEN = re.compile(r"(?:\.\.+|\b(?:dr|mr|mrs|ms|prof|st|vs|etc|z\. ?b|sr|sra))\s*\.?$", re.IGNORECASE)
_MOST_BACKCHANNEL_CHARS = 60
_PAIR_OR_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff]{2}|[^\\s\u3040-\u30ff\u3400-\u9fff]+")


def is_backchannel(text: str, language: str = "en") -> bool:
    """Whether a text is nothing but what listeners say to show that they listen ("mm-hm", "yeah, okay").

    Args:
        text: recognised words; an empty text is no back-channel.
        language: BCP 47 tag; only its first part counts.
    """
    plain = _plain(text)
    return 0 < len(plain) <= _MOST_BACKCHANNEL_CHARS and bool(_backchannel_pattern(_base(language)).fullmatch(plain))


def opening(text: str) -> str:
    """The first two words of a text, without punctuation; empty while there are fewer. Two of unspaced writing's
    characters count as a word."""
    words = _PAIR_OR_WORD.findall(_plain(text))
    return " ".join(words[:2]) if len(words) > 1 else ""


def completeness(text: str, language: str = "en") -> Completeness:
    """How finished a text sounds.

    Args:
        text: the words of a turn so far.
        language: BCP 47 tag; only its first part counts.
    """
    shown = text.strip().rstrip(_CLOSING).rstrip()
    plain = _plain(text)
    if not plain:
        return Completeness.UNKNOWN
    if shown[-1] in "?!？！؟":
        return Completeness.COMPLETE
    words = _LANGUAGES.get(_base(language))
    # Checked before the full stop: recognisers put one after every fragment.
    if words is not None and _hanging_pattern(_base(language)).search(plain):
        # A single "well" or "so" may be all that is said, but then nothing is lost by waiting.
        return Completeness.INCOMPLETE
    if shown[-1] in _MORE_FOLLOWS or _STILL_OPEN.search(shown):
        return Completeness.INCOMPLETE
    if shown[-1] in _SENTENCE_ENDS:
        return Completeness.COMPLETE
    return Completeness.LIKELY if words is not None else Completeness.UNKNOWN


def _base(language: str) -> str:
    return re.split(r"[-_]", language.strip().lower(), maxsplit=1)[0]


def _plain(text: str) -> str:
    """A text in lower case, hyphens taken out, other punctuation as single spaces, apostrophes kept."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    text = re.sub(r"(?<=\w)[-‐‑](?=\w)", "", text)
    return re.sub(r"[^\w']+|_+", " ", text).strip()


@functools.cache
def _backchannel_pattern(language: str) -> re.Pattern[str]:
    words = _LANGUAGES.get(language)
    known = sorted((_plain(word) for word in words.backchannels), key=len, reverse=True) if words else []
    one = "|".join([*map(re.escape, known), _HUM])
    between = " +" if words is None or words.spaced else " *"
    return re.compile(f"(?:{one})(?:{between}(?:{one}))*")


@functools.cache
def _hanging_pattern(language: str) -> re.Pattern[str]:
    words = _LANGUAGES[language]
    one = "|".join(re.escape(_plain(word)) for word in sorted(words.hanging, key=len, reverse=True))
    return re.compile(rf"(?:^|(?<=[ ']))(?:{one})$" if words.spaced else rf"(?:{one})$")
