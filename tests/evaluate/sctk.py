"""NIST's sclite and sc_stats (Debian package `sctk`) as a reference: hypotheses in, MAPSSWE figures out."""

import re
import shutil
import subprocess
from pathlib import Path

AVAILABLE = shutil.which("sctk") is not None
Texts = dict[str, str]

_RESULT = re.compile(
    r"# segs: (\d+)\).*\(mean:\s*(\S+)\) \(std dev:\s*(\S+)\) \(Z Stat:\s*(\S+)\) \(Stat Diff: (\w+)\)", re.DOTALL
)
_ERRORS = re.compile(r"^Totals\s+\d+\s+(\d+)\s+(\d+)", re.MULTILINE)


def mapsswe(references: Texts, first: Texts, second: Texts, folder: Path) -> dict[str, float | int | bool]:
    """Run `sclite -s` on both systems and `sc_stats -t mapsswe` on its alignments (figures have three decimals).

    At least one system must err somewhere: sc_stats crashes where there is no segment.
    """
    _write_trn(folder / "ref.trn", references)
    for name, texts in (("first", first), ("second", second)):
        _write_trn(folder / f"{name}.trn", texts)
        _run(
            f"sctk sclite -s -r ref.trn trn -h {name}.trn trn {name} -i rm -o sgml -O . -n {name}",
            folder,
        )
    sgml = "".join((folder / f"{name}.sgml").read_text() for name in ("first", "second"))
    _run("sctk sc_stats -p -t mapsswe -v -n cmp", folder, sgml)
    report = (folder / "cmp.stats.mapsswe").read_text()
    result, errors = _RESULT.search(report), _ERRORS.search(report)
    assert result and errors, report
    return {
        "segments": int(result[1]),
        "errors_first": int(errors[1]),
        "errors_second": int(errors[2]),
        "mean": float(result[2]),
        "std_dev": float(result[3]),
        "z": float(result[4]),
        "significant": result[5] == "Yes",
    }


def _write_trn(path: Path, texts: Texts) -> None:
    path.write_text("".join(f"{text} ({name})\n" for name, text in texts.items()))


def _run(command: str, folder: Path, stdin: str = "") -> None:
    done = subprocess.run(command.split(), cwd=folder, input=stdin, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
