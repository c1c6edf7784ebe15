"""What is known of each shipped photo beyond the prepared format: the renderer's records."""

import zipfile
from pathlib import Path

import pandas as pd

from ..errors import SourceError
from ..io.files import check_regular, parse_table, read_member, reason
from .sweethome import ARCHIVE_LIMIT, FIX, MEMBER_LIMIT, SHIPPED

NUMBERS = ["azimuth", "elevation", "focal", "visible_share"]


def photo_facts(source: Path | None = None) -> pd.DataFrame:
    """Read how the photos of `sweethome` were taken.

    Args:
        source: the folder with `photos/photos-NN.zip`; default: `data/sweethome` of the repository.

    Returns:
        One row a photo, indexed by `query_id`: `azimuth` (degrees, 0 looks at the front, 90 at the side that faces
        +x), `elevation` (degrees above the horizon), `focal` (mm on a 36 mm sensor), `visible_share` (of the
        silhouette, in [0, 1]), and `restyled`, whether colours and roughness of the model were drawn anew. Empty
        where there are no archives.

    Raises:
        SourceError: an archive is damaged.
    """
    tables = [pd.DataFrame(columns=["query_id", *NUMBERS, "restyled"], dtype=str)]
    for path in sorted(((source or SHIPPED) / "photos").glob("photos-*.zip")):
        check_regular(path, SourceError, ARCHIVE_LIMIT, FIX)
        try:
            with zipfile.ZipFile(path) as archive:
                records = read_member(archive, "records.csv", MEMBER_LIMIT, SourceError, FIX)
            table = parse_table(records, path, list(tables[0].columns), SourceError, FIX)
            tables.append(table.astype(dict.fromkeys(NUMBERS, float)))
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise SourceError(f"the records of photos cannot be read ({reason(error)})", path=path, fix=FIX) from None
    facts = pd.concat(tables).drop_duplicates("query_id", keep="last").set_index("query_id")
    return facts.astype(dict.fromkeys(NUMBERS, float)).assign(restyled=facts["restyled"] == "true")
