"""Endless varied text for synthesised training speech: plausible sentences, lists of words, invented words.

Place in the flow: random generator -> ``sentence`` -> synthesiser -> training speech.

Invariant: sentences for training and for held-out evaluation come from disjoint nouns and verbs (``held_out``).
"""

from __future__ import annotations

import numpy as np

_NOUNS = (
    "apple baby bird boat book bottle bowl box boy bread bridge brother bubble bus button cabbage camera captain "
    "castle chair cheese child church city cloud coffee colour cousin cow daughter doctor dog door dream driver "
    "duck earth family farmer father feather fence field film finger fire fish flower forest fox friend garden "
    "gate ghost giraffe girl glove goat grandfather grape hammer hat heart hill honey horse house idea island "
    "jacket jam journey judge juice king kitchen knife ladder lake lamp language leaf lemon letter library lion "
    "lip man map market meadow measure melon memory milk mirror money month moon morning mother mountain mouse "
    "mouth movie mushroom music nation needle neighbour night nose ocean office onion orange oven owl painter "
    "palm paper path peach pen people pepper phone picture pie pillow plane plum pocket poem pool potato prince "
    "problem pumpkin puppy queen question rabbit radio rain ribbon ring river road robot roof room rope rose "
    "sailor sandwich school sheep ship shoe shop silver sister sky smoke snow soap song soup spoon spring star "
    "station stone storm story street summer sun table teacher thing thought thumb ticket tiger tooth tower town "
    "toy train treasure tree truck umbrella uncle valley vase vegetable village violin voice wagon wall watch "
    "water wave weather wheel window winter wolf woman wood world yard year youth zebra zoo"
).split()
_VERBS = (
    "admire annoy ask avoid bake become begin believe blame bother bring build buy call carry catch change chase "
    "choose clean climb close cook cover cut describe draw drive drop enjoy find finish fix follow forget forgive "
    "give grab guess have hear help hide hold hope hug imagine invite join judge keep kick know laugh lead leave "
    "lift like lose love make measure meet miss move name need notice open paint pay pick plan please polish "
    "praise prefer promise pull push put reach read remember remove repeat save see sell send share shave show "
    "sing smell solve spell squeeze steal study teach tell thank think throw touch use visit wash watch weave "
    "wish worry write"
).split()
_ADJECTIVES = (
    "angry awful beautiful big black blue bold bright brown busy cheap chubby clever cold cool dark deep dirty "
    "eager early easy empty famous fast few foggy fresh friendly funny gentle good great green happy heavy huge "
    "icy large lazy light little long lovely loud lucky many mild modern narrow new nice noisy old open orange "
    "pale patient perfect plain polite poor pretty proud purple quick quiet red rich rough round sad safe sharp "
    "shiny short shy silent simple slow small smooth soft spicy strange strong sweet tall thick thin tiny ugly "
    "useful usual vague warm weak wet white whole wide wise wonderful wooden yellow young"
).split()
_ADVERBS = (
    "always almost again badly barely bravely calmly carefully early easily even everywhere finally gladly "
    "happily hardly here quickly maybe never now often once outside perhaps quietly rarely really slowly softly "
    "sometimes soon surely there today together tomorrow upstairs usually very warmly well why yesterday"
).split()
_NAMES = (
    "Adam Amy Ben Beth Bob Chloe David Emma Eva Fabio Fiona George Grace Hugo Ivy Jack Joy Julia Kim Leo Lucy "
    "Maya Max Mia Michael Nina Oscar Paul Peter Phoebe Rob Ruth Sam Sophie Tom Vera Victor Will Yusuf Zoe"
).split()
_PLACES = (
    "above at behind below beside beyond by for from in into near of off on over past through to under with"
).split()
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve twenty forty fifty ninety hundred "
    "thousand"
).split()
_TALK = (
    "Hello there, how may I help you?|Good morning!|Thank you very much.|Of course, I would be happy to.|"
    "I'm sorry, could you say that again please?|Sure, let me check that for you.|You're welcome!|What do you think?|"
    "Absolutely.|Well, maybe we should move on.|Goodbye, see you soon!|Just a moment, please.|Yes.|No, not at all.|"
    "Oh, wow, that's amazing!|Hmm, I believe so.|Who knows?|Would you mind waiting for a while?|"
    "My name is {name}, and I'm your assistant.|Please tell me more about the {noun}.|How was your {noun}, {name}?|"
    "That will be {number} {number} pounds.|Room {number} {number} {number}, please."
).split("|")
_FRAMES = (
    "The {adj} {noun} will {verb} a {noun} {prep} the {adj} {noun}.|{name} and {name} {verb} my {noun}, {adv}.|"
    "Why did {name} {verb} the {adj} {noun} {prep} your {noun}?|{adv}, we {verb} {number} {noun}s {prep} the {noun}.|"
    "They {verb} it {adv}, but you {verb} every {noun}.|Please {verb} the {noun} and {verb} {name}'s {adj} {noun}!|"
    "If the {noun} is {adj}, {name} may {verb} both {noun}s.|I {adv} {verb} {adj} {noun}s; who could {verb} them?|"
    "{number} {adj} {noun}s {verb} a {noun}.|Both the {noun} and the {noun} were {adj} {prep} the {noun}.|"
    "We have to {verb} before the {noun} can {verb}.|This {noun} must be {adj} and {adj}.|"
    "Could you {verb} me the {noun}, or should I {verb} {prep} a {noun}?|There was a {adj}, {adj} {noun}."
).split("|")
_ONSETS = (
    "b c d f g h j k l m n p r s t v w y z bl br ch cl cr dr fl fr gl gr pl pr qu sh sk sl sm sn sp st str sw th tr tw"
).split()
_VOWELS = "a e i o u ee oo ou ai ea oa ow ay oy au er ar or ir".split()
_CODAS = "b ck d f g k l m n p r s t v x z ch sh th ng nt mp lp ft st nd sk lm lf rb rm bs ps".split()


def sentence(rng: np.random.Generator, held_out: bool = False) -> str:
    """A sentence of about 2 to 14 words.

    Args:
        rng: source of chance.
        held_out: draw nouns and verbs that training never uses (every seventh of the lists).
    """
    kind = rng.random()
    if kind < 0.50:
        return _fill(rng, str(rng.choice(_FRAMES)), held_out)
    if kind < 0.65:
        return _fill(rng, str(rng.choice(_TALK)), held_out)
    if kind < 0.80:
        lists = (_part(_NOUNS, held_out), _part(_VERBS, held_out), _ADJECTIVES, _ADVERBS, _NUMBERS)
        words = [str(rng.choice(lists[int(rng.integers(len(lists)))])) for _ in range(int(rng.integers(3, 9)))]
        return _punctuate(rng, words)
    return _punctuate(rng, [invented_word(rng) for _ in range(int(rng.integers(2, 8)))])


def invented_word(rng: np.random.Generator) -> str:
    """A pronounceable word that is in no dictionary; every language reads it by its own rules."""
    syllables = []
    for _ in range(int(rng.choice((1, 2, 3), p=(0.45, 0.4, 0.15)))):
        onset = str(rng.choice(_ONSETS)) if rng.random() < 0.9 else ""
        syllables.append(onset + str(rng.choice(_VOWELS)))
    coda = str(rng.choice(_CODAS)) if rng.random() < 0.6 else ""
    return "".join(syllables) + coda


def _part(words: list[str], held_out: bool) -> list[str]:
    return [word for index, word in enumerate(words) if (index % 7 == 3) == held_out]


def _fill(rng: np.random.Generator, frame: str, held_out: bool) -> str:
    choices = {
        "noun": _part(_NOUNS, held_out),
        "verb": _part(_VERBS, held_out),
        "adj": _ADJECTIVES,
        "adv": _ADVERBS,
        "name": _NAMES,
        "prep": _PLACES,
        "number": _NUMBERS,
    }
    for slot, words in choices.items():
        while "{" + slot + "}" in frame:
            frame = frame.replace("{" + slot + "}", str(rng.choice(words)), 1)
    return frame[0].upper() + frame[1:]


def _punctuate(rng: np.random.Generator, words: list[str]) -> str:
    text = " ".join(word + ("," if rng.random() < 0.15 else "") for word in words).rstrip(",")
    return text + str(rng.choice((".", "?", "!"), p=(0.7, 0.2, 0.1)))
