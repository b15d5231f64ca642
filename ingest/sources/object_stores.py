"""Files of object stores and other file systems that pyarrow knows: `s3://`, `gs://`, `abfss://`, `file://`.

Credentials come from where each store's own tools look for them (environment, profile, instance role), or
stand in the URL's query string as pyarrow documents it, such as `?endpoint_override=` of an S3-like store.
"""

from fnmatch import fnmatchcase
from urllib.parse import quote

from bridge.errors import UsageError
from ingest.sources.file_listing import SourceFile, pyarrow_missing

try:
    from pyarrow import fs
except ImportError as missing:
    raise pyarrow_missing() from missing


def stored_files(url: str) -> list[SourceFile]:
    """The files that a URL names; `*` stands for any part of a file's name.

    Raises:
        UsageError: the store cannot be reached, or holds no such file.
    """
    try:
        store, path = fs.FileSystem.from_uri(url)
        folder, _, name = path.rpartition("/")
        if "*" in name:
            entries = store.get_file_info(fs.FileSelector(folder))
            found = [entry for entry in entries if fnmatchcase(entry.base_name, name)]
        else:
            found = [store.get_file_info(path)]
    except (OSError, ValueError) as error:
        raise UsageError(f"source {url.partition('?')[0]} cannot be reached: {error}") from error
    files = sorted((entry for entry in found if entry.type is fs.FileType.File), key=lambda entry: entry.path)
    if not files:
        raise UsageError(f"source {url.partition('?')[0]} names no file: give a file's URL, or a pattern of its name")
    return [_stored(store, entry, url) for entry in files]


def _stored(store: fs.FileSystem, entry: fs.FileInfo, url: str) -> SourceFile:
    folder, _, query = url.partition("?")
    name = f"{store.type_name}://{entry.path.lstrip('/')}"
    return SourceFile(
        f"{folder.rpartition('/')[0]}/{quote(entry.base_name)}" + (f"?{query}" if query else ""),
        name,
        f"{name} ({entry.size} bytes, changed {entry.mtime_ns})",
        lambda: store.open_input_file(entry.path),
    )
