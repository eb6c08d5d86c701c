"""The user's own data: a table, a folder, the Hub or objects in memory, as train, validation and test.

The files read in the order in which data flow: `sources` and `tables` (anything to `Rows`), `roles` (which column is
what), `values` and `inputs` (checked classes, attribute values, pictures, texts, vectors), `build` (a `Dataset`),
`cuts`, and `load`, which calls them; `unlabelled`, for rows whose labels are not read.
"""

from aifs_peft.data.own.load import from_table, load_own
from aifs_peft.data.own.sources import is_own
from aifs_peft.data.own.unlabelled import load_unlabelled

__all__ = ["from_table", "is_own", "load_own", "load_unlabelled"]
