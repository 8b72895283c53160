"""Phone labels of the synthesisers and aligners as visible gestures: which viseme, from when to when, how strongly.

Place in the flow: espeak-ng phonemes or ARPAbet phones with times -> gestures -> coarticulation -> mouth tracks.

Invariants:
    * gestures are in order and do not overlap;
    * a stop's gesture spans its closure, up to the burst; the burst belongs to the sound behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.studio.mouth import VISEMES


@dataclass(frozen=True, slots=True)
class Gesture:
    """One viseme the mouth aims at.

    Attributes:
        viseme: a key of ``engine.studio.mouth.VISEMES``.
        start_s: when its sound starts, seconds.
        end_s: when its sound ends, seconds.
        strength: how fully it is spoken; stressed vowels more, unstressed less.
    """

    viseme: str
    start_s: float
    end_s: float
    strength: float = 1.0


def _table(rows: str) -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for row in rows.strip().splitlines():
        visemes, _, names = row.partition(":")
        for name in names.split():
            table[name] = tuple(visemes.split())
    unknown = {viseme for row in table.values() for viseme in row} - VISEMES.keys()
    if unknown:
        raise ValueError(f"no such visemes: {unknown}")
    return table


ARPABET = _table("""
sil: sil pau sp SIL ssil h# brth
PP: p b m em
FF: f v
TH: th dh
DD: t d n dx en nx
L: l el
kk: k g ng
CH: sh zh ch jh
SS: s z
RR: r er axr
aa: aa ah
AE: ae
E: eh
I: ih iy y
O: ao
U: uh uw w ux
ax: ax ix
hh: hh hv q
E I: ey
aa I: ay
aa U: aw
O U: ow
O I: oy
""")
"""ARPAbet phones (flite, festival, CMU dictionary; lower case, without stress digits)."""

ESPEAK = _table("""
sil: _ _: _! _| |
PP: p b m p^ b^ m^ m# p' mb
FF: f v pf v^ f^ B P
TH: T D
DD: t d n t2 t# d# t' d' n^ n. t. d. * ** nj J J^ c t[ d[ n[ n-
L: l l^ l# L l- l. K l/ l/2 K# lj
kk: k g N x X q k^ g^ G Q Q^ R R^ R2 r" k' x^ NG Nj C2 C C^ ; Q2 g/
CH: sx S Z tS dZ S^ Z^ tS; dZ; S; Z; s. z. ts. tS. dZ. tS^ S. Z. tS2
SS: s z z2 s- ts dz s; z; ts; dz; s[ ts^ tsh ts2 s^ z^
RR: r r- r/ r. 3 3: r# *r r^ r2
aa: a: A A: 0 V Q: aa A~ V: 6 a2 & A2 a~ 0# V2
AE: a & a/ aE E~ W~ W
E: E e e: E: E2 e2 e# Y Y: E# {
I: I i i: I2 i2 j I# i; y y: y; I; i" u" i# ii I2#
O: O O: o o: O2 o2 o~ O~ O# ø oe
U: u u: U w u2 U2 w# uu u# H U; ui
ax: @ @2 @5 a# ə @- I" E3 @# "
hh: h h# H# ? ?! h2 hh \\
RR RR: 3r
E I: eI eI# E:I eI2
aa I: aI aI2 ai aI;
aa U: aU au aU# Au
O U: oU @U oU# o@U OU ou VU
O I: OI Oi oi
E ax: e@ ea
I ax: i@ I@ ia
U ax: U@ u@ ua
O RR: O@ o@ O@2
aa RR: A@ A: A@r
U RR: U@r
I RR: i@3
aa I RR: aI3 aI@
aa U RR: aU@ aU3
I E: iE
I aa: ja
AE I: &i
PP FF: pF
O kk: ong
ax L: @L
ax RR: @r
""")
"""espeak-ng's phoneme mnemonics of all languages, without stress marks."""

_VOICELESS_STOPS_ARPABET = frozenset("p t k ch".split())
_VOICED_STOPS_ARPABET = frozenset("b d g jh".split())
_VOICELESS_STOPS_ESPEAK = frozenset("p t t2 k tS ts c q pf".split())
_CLOSURE_BEFORE_EVENT_S = 0.045
_BURST_S = 0.008
_STRESS = {"'": 1.12, ",": 1.0, "%": 0.85, "=": 0.85}


def arpabet_visemes(name: str) -> tuple[str, ...]:
    """Visemes of an ARPAbet phone; unknown ones are neutral."""
    base = name.strip().rstrip("012")
    return ARPABET.get(base) or ARPABET.get(base.lower()) or ("sil" if not base or base[0] in "<+[_" else "ax",)


def espeak_visemes(name: str) -> tuple[str, ...]:
    """Visemes of an espeak-ng mnemonic; what the table lacks is read by its longest known beginning."""
    base = name.lstrip("'%,=|")
    for end in range(len(base), 0, -1):
        if base[:end] in ESPEAK:
            return ESPEAK[base[:end]]
    return ("sil",) if not base else ("ax",)


def gestures_from_espeak(phonemes: Sequence[tuple[str, float, float]]) -> list[Gesture]:
    """Gestures of espeak-ng's phoneme events.

    The library reports a voiceless stop at its burst: the 40–50 ms of silence in which the lips (or the tongue) are
    closed lie before the event, inside the span of the sound before. They are given back to the stop here.

    Args:
        phonemes: (mnemonic, start_s, end_s), in order.
    """
    spans: list[list] = []  # [visemes, start_s, end_s, strength]
    for name, start_s, end_s in phonemes:
        visemes = espeak_visemes(name)
        strength = next((value for mark, value in _STRESS.items() if name.startswith(mark)), 0.95)
        closure_s = 0.0
        if name.lstrip("'%,=|").rstrip("#^;") in _VOICELESS_STOPS_ESPEAK:
            before_s = spans[-1][2] - spans[-1][1] if spans else start_s
            closure_s = min(_CLOSURE_BEFORE_EVENT_S, 0.6 * before_s)
        if closure_s and spans:
            spans[-1][2] = start_s - closure_s
        if closure_s and visemes in (("PP",), ("DD",), ("kk",)):
            spans.append([visemes, start_s - closure_s, start_s + _BURST_S, strength])
            spans.append([("hh",), start_s + _BURST_S, end_s, strength])  # aspiration takes the next sound's shape
        else:
            spans.append([visemes, start_s - closure_s, end_s, strength])
    return _gestures(spans)


def gestures_from_arpabet(phones: Sequence[tuple[str, float, float]]) -> list[Gesture]:
    """Gestures of ARPAbet phones, whose stops hold both closure and burst.

    Args:
        phones: (phone, start_s, end_s), in order.
    """
    spans: list[list] = []
    for name, start_s, end_s in phones:
        visemes, base = arpabet_visemes(name), name.strip().rstrip("012").lower()
        closed = 0.6 if base in _VOICELESS_STOPS_ARPABET else 0.85 if base in _VOICED_STOPS_ARPABET else 1.0
        if closed < 1 and visemes in (("PP",), ("DD",), ("kk",)):
            burst_s = start_s + closed * (end_s - start_s)
            spans.append([visemes, start_s, burst_s, 1.0])
            spans.append([("hh",), burst_s, end_s, 1.0])
        else:
            spans.append([visemes, start_s, end_s, 1.0])
    return _gestures(spans)


def _gestures(spans: list[list]) -> list[Gesture]:
    """Splits diphthongs and the like: the first part is the longer one."""
    gestures: list[Gesture] = []
    for visemes, start_s, end_s, strength in spans:
        length_s, at_s = end_s - start_s, start_s
        shares = (1.0,) if len(visemes) == 1 else (0.55, *[0.45 / (len(visemes) - 1)] * (len(visemes) - 1))
        for viseme, share in zip(visemes, shares, strict=True):
            if share * length_s > 0:
                gestures.append(Gesture(viseme, at_s, at_s + share * length_s, strength))
            at_s += share * length_s
    return gestures


