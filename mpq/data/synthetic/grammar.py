"""A small English grammar that writes the sentences of the embedded corpus.

Sentences are drawn at random from templates whose slots are lists of words of the same part of speech, so that a
recogniser can't guess a word from its neighbours but must recognise its sound. This makes the word error rate of a tiny
model respond when its weights lose bits. There are over 450 different words; a test counts them.
"""

import re
from functools import cache

import numpy as np

_SLOTS: dict[str, str] = {
    "name": """anna ben carla david emma frank grace henry irene jack karen louis maria nathan olivia peter quentin
        rachel simon teresa victor wendy arthur bella clara daniel edward fiona george hannah""",
    "person": """teacher doctor farmer baker driver painter singer lawyer sailor soldier writer student neighbour
        brother sister mother father uncle cousin captain waiter nurse engineer carpenter gardener judge pilot butcher
        plumber dentist""",
    "animal": """dog cat horse rabbit mouse sheep chicken duck lion tiger monkey elephant snake turtle fox wolf bear
        deer pigeon spider frog goat donkey squirrel camel whale""",
    "object": """table chair lamp window mirror bottle basket hammer ladder blanket pillow candle ticket letter
        envelope newspaper camera umbrella suitcase wallet necklace button needle bucket shovel bicycle guitar piano
        violin drum clock bell engine wheel radio printer keyboard carpet curtain kettle spoon knife saucer plate
        hat jacket shirt scarf glove boot""",
    "food": """bread butter cheese honey sugar pepper rice soup salad apple banana cherry lemon orange peach melon
        carrot onion potato tomato cabbage mushroom garlic chocolate biscuit pudding coffee juice milk water""",
    "place": """garden kitchen bathroom cellar balcony market station airport harbour museum library theatre church
        school hospital factory office restaurant hotel castle bridge tunnel forest mountain valley river island beach
        desert village city park farm stadium bakery pharmacy""",
    "colour": "red blue green yellow purple black white brown grey pink silver golden",
    "adjective": """old new small large heavy light narrow wide clean dirty broken empty full cheap expensive quiet
        noisy gentle clever lazy hungry angry happy lonely famous ancient modern strange simple perfect bitter sweet
        frozen wooden round square sharp smooth""",
    "verb": """found lost bought sold painted carried opened closed cleaned repaired borrowed stole noticed followed
        remembered forgot dropped lifted pushed pulled measured counted covered hid washed wanted needed praised
        described admired ordered delivered""",
    "motion": "walked ran drove hurried travelled jumped climbed swam flew marched wandered returned",
    "preposition": "behind beside under near above below against beyond inside around",
    "number": """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand""",
    "plural": """pencils candles tickets letters flowers trees houses windows stories pictures questions answers
        minutes hours stones coins boxes bottles chairs books songs islands boats trains engines villages""",
    "day": "monday tuesday wednesday thursday friday saturday sunday",
    "month": "january february march april may june july august september october november december",
    "time": "yesterday tomorrow tonight today sometimes never always often again soon later already",
    "weather": "rain snow fog thunder sunshine wind frost hail",
    "command": "turn move bring show send wash fetch mend paint check hold keep",
    "manner": "slowly quickly carefully loudly softly badly gladly bravely suddenly calmly",
    "abstract": """money music freedom silence courage history science language weather memory justice fashion
        friendship danger pleasure knowledge""",
}

_TEMPLATES = [
    "the {adjective} {person} {verb} the {colour} {object}",
    "{name} {verb} {number} {plural} {preposition} the {place}",
    "{name} and {name} {motion} {manner} towards the {place}",
    "please {command} the {object} {preposition} the {adjective} {object}",
    "there were {number} {adjective} {plural} in the {place} on {day}",
    "my {person} {time} talks about {abstract} and {abstract}",
    "the {animal} {motion} {preposition} the {adjective} {place}",
    "we need {food} and {food} for the {person} on {day}",
    "in {month} the {weather} {verb} the whole {place}",
    "did the {person} say that {name} {verb} a {animal}",
    "{number} {plural} cost {number} pounds at the {place}",
    "{name} is a {adjective} {person} with a {colour} {object}",
    "i {verb} your {object} {manner} {time}",
    "she will {command} {number} {plural} before {day}",
    "nobody {verb} the {adjective} {animal} until {month}",
    "his {animal} likes {adjective} {food} but not {food}",
]


@cache
def slots() -> dict[str, tuple[str, ...]]:
    """Return the words of each slot, upper case."""
    return {slot: tuple(words.upper().split()) for slot, words in _SLOTS.items()}


@cache
def vocabulary() -> frozenset[str]:
    """Return every word that a sentence can contain."""
    fixed = re.sub(r"\{\w+\}", " ", " ".join(_TEMPLATES)).upper().split()
    return frozenset(fixed).union(*slots().values())


def sentence(rng: np.random.Generator) -> str:
    """Return one random sentence, upper case, without punctuation, as in LibriSpeech's transcripts."""
    template = _TEMPLATES[rng.integers(len(_TEMPLATES))]

    def fill(match: re.Match[str]) -> str:
        words = slots()[match[1]]
        return words[rng.integers(len(words))]

    return re.sub(r"\{(\w+)\}", fill, template).upper()
