import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_what_to_cite_is_this_version_and_the_paper():
    """The file is valid by `cffconvert --validate`, which the suite doesn't install; here, what could get stale."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    (paper,) = citation["references"]
    assert "2501.03643" in paper["url"] and all(author["family-names"] for author in paper["authors"])
