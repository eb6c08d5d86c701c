"""`python -m aifs_peft.data.spurious_scenes --world clinic --output-dir DIR [--push-to-hub OWNER/NAME]`."""

from __future__ import annotations

import argparse
import sys

from aifs_peft.data.spurious_scenes import WORLDS, load_spurious_scenes
from aifs_peft.data.spurious_scenes.publish import push, write
from aifs_peft.errors import AIFSError, PushFailedError


def main(arguments: list[str] | None = None) -> int:
    """Generate a world, write it to a folder and, on request, push it.

    Args:
        arguments: of the command line; None takes those of this process.

    Returns:
        The exit status: 0, 1 where the push failed, 2 for a mistake in the call; then one line on stderr.
    """
    try:
        _generate(arguments)
    except AIFSError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1 if isinstance(error, PushFailedError) else 2
    return 0


def _generate(arguments: list[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m aifs_peft.data.spurious_scenes", description=__doc__)
    parser.add_argument("--world", choices=sorted(WORLDS), default="clinic")
    parser.add_argument("--shortcuts", nargs="*", help="factors that follow the label; default: the world's first")
    parser.add_argument("--aligned", type=float, default=0.95)
    parser.add_argument("--label-noise", type=float, default=0.0)
    parser.add_argument("--core-strength", type=float, default=1.0)
    parser.add_argument("--n-train", type=int, default=4000)
    parser.add_argument("--n-validation", type=int, default=1000)
    parser.add_argument("--n-test", type=int, default=2000)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", help="write Parquet files, data card and preview here")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME")
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    options = vars(parser.parse_args(arguments))
    folder, repo_id, public = options.pop("output_dir"), options.pop("push_to_hub"), options.pop("public")
    if not folder and not repo_id:
        parser.error("give --output-dir, --push-to-hub or both")
    data = load_spurious_scenes(**options)
    if folder:
        sys.stdout.write(f"wrote {write(data, folder)}\n")
    if repo_id:
        sys.stdout.write(f"pushed {push(data, repo_id, private=not public)}\n")


if __name__ == "__main__":
    sys.exit(main())
