"""Facts of the shipped photos: read as numbers and flags, later archives win, none is no error."""

import zipfile
from pathlib import Path

from cmiclib.sources.sweethome import photo_facts

HEAD = "query_id,shape_id,azimuth,elevation,focal,visible_share,restyled,floor"


def write(path: Path, *rows: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("records.csv", "\n".join([HEAD, *rows]))


def test_later_archives_win(tmp_path: Path) -> None:
    write(tmp_path / "photos/photos-00.zip", "a__00,a,10.5,20,35,1,true,x", "b__00,b,350,0,24,0.5,false,x")
    write(tmp_path / "photos/photos-01.zip", "a__00,a,90,20,35,1,false,x")
    facts = photo_facts(tmp_path)
    assert facts.loc["a__00"].tolist() == [90.0, 20.0, 35.0, 1.0, False]
    assert facts.azimuth.to_dict() == {"a__00": 90.0, "b__00": 350.0}


def test_without_archives_there_are_no_facts(tmp_path: Path) -> None:
    facts = photo_facts(tmp_path)
    assert facts.empty and {"azimuth", "restyled"} <= set(facts.columns)
