"""Contact sheets."""

SHEETS = {
    "typical": "Contact sheet of typical training images of each class",
    "aligned": "Contact sheet of training images that go with the shortcut",
    "conflicting": "Contact sheet of training images that go against the shortcut",
}


def sheet_path(kind: str) -> str:
    """Where a sheet lies in the folder of a run."""
    return f"audit/contact_{kind}.png"
