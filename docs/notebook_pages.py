"""For `mkdocs build`: every notebook becomes a page with the outputs that are stored in it; nothing is executed."""

from __future__ import annotations

from pathlib import PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter


class NotebookPage(File):
    """A notebook, of which MkDocs makes a page: its content is Markdown already."""

    def is_documentation_page(self) -> bool:
        """Yes, although its name does not end in `.md`."""
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page, and its pictures beside it, in the place of each notebook."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = PurePosixPath(notebook.src_uri)
        named = {"unique_key": name.stem, "output_files_dir": f"{name.stem}_files"}
        text, made = MarkdownExporter().from_filename(str(notebook.abs_src_path), resources=named)
        files.remove(notebook)
        files.append(NotebookPage.generated(config, notebook.src_uri, content=text))
        for picture, content in made["outputs"].items():
            files.append(File.generated(config, str(name.parent / picture), content=content))
    return files
