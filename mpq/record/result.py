"""The record of one run, `result.json`: its settings, size, quality, cost and provenance.

Tables, figures and dashboards read only these files, so the fields are a contract: within a schema fields are only
added, with a default. They are frozen dataclasses rather than a dict, so that a misspelt field is an error where it is
written and not an empty cell in a table a month later.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mpq.errors import UserError
from mpq.record.fields import STRICT, parse


@dataclass(frozen=True)
class Units:
    """What an interval is drawn over: `counts` maps each speaker, or each utterance, to errors and words (or letters).

    `kind`: utterances where a set has too few speakers (`mpq.evaluate.units`).
    """

    kind: Literal["speaker", "utterance"]
    counts: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class CharacterErrors:
    """Character errors of one evaluation set: `cer` in percent = 100 errors / characters, including spaces.

    `interval`: the 95 % interval of `cer`, percent, over `units` (both None in older records; no interval: one
    speaker, or the same errors everywhere).
    """

    cer: float
    errors: int
    characters: int
    interval: tuple[float, float] | None = None
    units: Units | None = None


@dataclass(frozen=True)
class WordErrors:
    """Word errors of one evaluation set: `wer` in percent = 100 errors / words.

    `characters`: the character errors of the same texts; `interval`: the 95 % interval of `wer`, percent, over `units`
    (no interval: one speaker, or the same errors everywhere). `insertions`, `deletions`, `substitutions`: what the
    errors are; `loops`: hypotheses of more than twice as many words as their reference, as of a decoder that repeats
    itself. (None in older records.)
    """

    wer: float
    errors: int
    words: int
    utterances: int
    characters: CharacterErrors | None = None
    interval: tuple[float, float] | None = None
    insertions: int | None = None
    deletions: int | None = None
    substitutions: int | None = None
    loops: int | None = None
    units: Units | None = None


@dataclass(frozen=True)
class Baseline:
    """The run that a run was compared with."""

    exp: str
    seed: int


@dataclass(frozen=True)
class CharacterChange:
    """One set against the baseline: `difference` = CER - baseline CER and its 95 % `interval`, percentage points.

    `interval` is None where there is none (see `WordErrors`).
    """

    difference: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Significance:
    """One set against the baseline: `difference` = WER - baseline WER and its 95 % `interval`, percentage points.

    `interval` is None where there is none (see `WordErrors`). `z` and two-tailed `p` are MAPSSWE's (NIST); z has the
    sign of the difference: positive is worse than the baseline. `characters`: the same for the character error rate;
    `change`: errors of each of the set's `units` minus the baseline's (None in records older than these fields).
    """

    baseline: Baseline
    difference: float
    interval: tuple[float, float] | None
    z: float
    p: float
    characters: CharacterChange | None = None
    change: dict[str, int] | None = None


SCHEMA = 1


@dataclass(frozen=True)
class Bits:
    """Bits per weight: the `target` (None if there is none) and the parameter-weighted `average`; and `activations`.

    `average`: of the bits in which codes are packed; `coded`: of those that they take in the coded file (None if it is
    not coded). `zeros`: the share of the same weights that are zero. (Both None in older records.)
    """

    target: float | None
    average: float
    activations: float = 32.0
    coded: float | None = None
    zeros: float | None = None


@dataclass(frozen=True)
class Size:
    """Size: `ideal_*` counts bits x parameters, `file_*` the bytes on disk; each ratio is float32 size / this size.

    `packed_bytes`: of the file without coding (None in older records and where sizes follow from shapes: it is such a
    file); systems are compared by it. `target_megabytes`: of the file that was asked for (None: bits were).
    """

    parameters: int
    ideal_bits: int
    ideal_ratio: float
    file_bytes: int
    file_ratio: float
    packed_bytes: int | None = None
    target_megabytes: float | None = None

    @property
    def packed(self) -> int:
        """The bytes of the file without coding."""
        return self.file_bytes if self.packed_bytes is None else self.packed_bytes

    @property
    def packed_ratio(self) -> float:
        """The float32 size / the size of the file without coding."""
        return self.file_ratio * self.file_bytes / self.packed

    @property
    def coded(self) -> int | None:
        """The bytes of the coded file; None if the file is not coded."""
        return None if self.packed == self.file_bytes else self.file_bytes

    @property
    def coded_ratio(self) -> float | None:
        """The float32 size / the size of the coded file; None if the file is not coded."""
        return None if self.coded is None else self.file_ratio


@dataclass
class StageTime:
    """Cost of one stage: wall-clock seconds, devices, updates, audio-seconds processed, peak bytes, times resumed.

    `processor_seconds` are those of all threads and workers of the process (0 in records older than this field).
    `posteriors_found`: with `distill.keep`, how many of the teacher's posteriors were on disk when the stage first
    began, whose computation its seconds therefore lack (None: not kept). Not frozen: the ledger counts in it while the
    stage runs.
    """

    name: str
    seconds: float
    devices: int
    updates: int
    audio_seconds: float
    peak_memory_bytes: int
    resumed: int = 0
    processor_seconds: float = 0.0
    posteriors_found: int | None = None


@dataclass(frozen=True)
class Time:
    """Compression time: the sums over the stages, evaluation excluded; device_seconds = sum of seconds x devices."""

    seconds: float
    device_seconds: float
    stages: tuple[StageTime, ...]


@dataclass(frozen=True)
class Data:
    """The data by name and content hash; `synthetic` says whether it is synthetic speech (None: not stated).

    `skipped` is the number of bad files that were left out (`on_bad_audio=skip`). `utterances_per_speaker`: how many of
    each speaker were evaluated (None: all).
    """

    name: str
    hash: str
    synthetic: bool | None = None
    skipped: int = 0
    utterances_per_speaker: int | None = None


@dataclass(frozen=True)
class Hardware:
    """The machine: CPU model, usable cores, memory in bytes, and the name of each GPU."""

    cpu: str
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """Where the result comes from; commit and dirty are None outside git, the date is UTC in ISO 8601.

    `teacher` is the SHA-256 of the weights that were compressed (None if they were random, or in older records).
    """

    commit: str | None
    dirty: bool | None
    command: str
    versions: dict[str, str]
    hardware: Hardware
    data: Data
    date: str
    teacher: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run; `wer` and `significance` map an evaluation set's name to its figures (None for a baseline).

    `scale`: from the model's file in `conf/model/`; "own" for a user's model, which has no such file. `normalizer`:
    what references and hypotheses went through before they were compared (None: they are only spelled alike).
    `spelling`: how they were brought to a CTC model's vocabulary (`mpq.models.processor.spelling_rule`; None for others
    and in older records).
    """

    schema: int = SCHEMA
    exp: str
    seed: int
    scale: Literal["real", "tiny", "paper", "own"]
    smoke: bool
    model: str
    recipe: str
    bits: Bits
    size: Size
    wer: dict[str, WordErrors]
    significance: dict[str, Significance] | None = None
    time: Time
    provenance: Provenance
    normalizer: str | None = None
    spelling: str | None = None
    __pydantic_config__ = STRICT

    @property
    def references(self) -> str:
        """The name of the file of references (`run_folder.references_file`): of the data, in their normal form."""
        return references_name(self.provenance.data.name, self.normalizer)

    def to_json(self) -> str:
        """Return the text of `result.json`; raises ValueError for a value that JSON can't represent (NaN, infinity)."""
        content = asdict(self)
        if self.significance is None:
            del content["significance"]
        # A field that is None is left out, so that an old record, when rewritten, stays identical.
        for name in [name for name in ("packed_bytes", "target_megabytes") if content["size"][name] is None]:
            del content["size"][name]
        content["bits"] = {key: value for key, value in content["bits"].items() if value is not None or key == "target"}
        for name in ("normalizer", "spelling"):
            if content[name] is None:
                del content[name]
        if self.provenance.data.utterances_per_speaker is None:
            del content["provenance"]["data"]["utterances_per_speaker"]
        words = list(content["wer"].values())
        letters = [figures["characters"] for figures in words if figures["characters"]]
        tests, stages = content.get("significance", {}).values(), content["time"]["stages"]
        for figures in [*words, *tests, *stages, *letters]:
            # A test's and the characters' interval were there from the start, and none is told as null.
            always = "interval" if "z" in figures or "cer" in figures else ""
            for key in [key for key, value in figures.items() if value is None and key != always]:
                del figures[key]
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def references_name(data: str, normalizer: str | None) -> str:
    """Return the name of the references of `data` after the `normalizer`: texts differ between normal forms."""
    return data if normalizer is None else f"{data}-{normalizer.replace(' ', '_')}"


def from_json(text: str, source: Path | str = "result.json") -> Result:
    """Read the text of a record; `source` is its path, for the message.

    Raises UserError if it is truncated or not JSON, has a different schema, or has a missing or wrong field.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{source} is broken or truncated ({error}); remove it and run its experiment again") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise UserError(f"{source} has schema {schema}, but this version of mpq reads {SCHEMA}: update mpq")
    if schema != SCHEMA or type(schema) is not int:
        raise UserError(f"{source} has schema {schema!r}, but mpq reads {SCHEMA}: run the experiment again")
    try:
        return parse(Result, text)
    except ValueError as error:
        raise UserError(f"{source} is not a complete record: {error}; remove it, run its experiment again") from error
