"""What a bundle says of itself: `manifest.json`, whose SHA-256 is the bundle's digest."""

from __future__ import annotations

import hashlib
import re

import msgspec

from cloche.core.errors import RefusedError
from cloche.core.signature import Signature
from cloche.runtimes.base import RuntimeSpec

FORMAT = 2
MANIFEST = "manifest.json"
SEAL = "seal.json"
#: A tar header holds 100 bytes of name.
PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}", re.ASCII)
MAX_FILES = 1_000
MAX_FILE_BYTES = 8 * 2**30 - 1
MAX_BUNDLE_BYTES = 16 * 2**30
MAX_MANIFEST_BYTES = 16 * 2**20


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class FileEntry(_Part, frozen=True, rename={"size": "size_bytes"}):
    """A FileEntry is one file of the bundle: where it stands, its bytes, and their SHA-256 in hex."""

    path: str
    size: int
    sha256: str


class GoldenFacts(_Part, frozen=True):
    """GoldenFacts are how many golden examples there are and how near an answer must be."""

    rows: int
    rtol: float
    atol: float


class ParityFacts(_Part, frozen=True):
    """ParityFacts are how closely the bundle answers as the original: rows compared, largest difference.

    Labels were equal and numbers within the tolerance, or it would not have been packed.
    """

    rows: int
    max_difference: float


class Measured(_Part, frozen=True):
    """Measured is what the bundle costs on the machine that packed it; seconds and bytes."""

    original_bytes: int
    size_bytes: int
    load_s: float
    memory_bytes: int
    #: The most that it took while it loaded.
    load_bytes: int
    row_p50_s: float
    row_p99_s: float
    rows_per_s: float
    original_row_s: float | None = None


class Lineage(_Part, frozen=True):
    """A Lineage is where the bundle comes from."""

    cloche: str
    python: str
    platform: str
    packages: dict[str, str]
    git_commit: str | None = None
    git_dirty: bool | None = None
    #: Where the model comes from, as what saved it says: {"mlflow run": "8a1c..."}.
    origin: dict[str, str] = {}


class Manifest(_Part, frozen=True):
    """A Manifest is everything of a bundle that is said in words and small numbers."""

    format: int
    name: str
    created: str
    task: str
    framework: str
    description: str
    signature: Signature
    runtime: RuntimeSpec
    requirements: tuple[str, ...]
    golden: GoldenFacts
    #: Named numbers on held-out rows (accuracy, roc_auc, mae, ...); None without labels.
    quality: dict[str, float] | None
    #: Rows given when it was packed; 0 when there were none.
    rows: int
    parity: ParityFacts | None
    #: None only in the draft that is measured while packing.
    measured: Measured | None
    lineage: Lineage
    licence: str | None
    #: What whoever uses it should know ("packed without rows: no profile, no baseline").
    notes: tuple[str, ...]
    files: tuple[FileEntry, ...]
    #: For whom it is, and its limits, as whoever packed it says.
    about: str | None = None

    def encode(self) -> bytes:
        """Canonical JSON: keys sorted, no space, shortest numbers that read back the same."""
        return msgspec.json.encode(self, order="sorted")


def digest_of(manifest: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(manifest).hexdigest()


def decode_manifest(data: bytes) -> Manifest:
    """The manifest of these bytes; RefusedError CL-E404 or CL-E408 when it is none or not a safe one."""
    try:
        format_ = msgspec.json.decode(data, type=_Format).format
        if format_ != FORMAT:
            raise RefusedError(
                f"the bundle has format {format_}, this Cloche reads {FORMAT}",
                where=MANIFEST,
                hint="use the Cloche that packed it, or pack it again",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise RefusedError(
            f"{MANIFEST} can't be read: {error}", code="CL-E404", where=MANIFEST, hint="get the bundle anew"
        ) from None
    _check_files(manifest.files)
    return manifest


class _Format(msgspec.Struct):
    format: int


def _check_files(files: tuple[FileEntry, ...]) -> None:
    if len(files) > MAX_FILES:
        raise _unsafe(f"{MANIFEST} lists {len(files)} files; at most {MAX_FILES} are allowed")
    seen: dict[str, str] = {name: name for name in (MANIFEST, SEAL)}
    for file in files:
        check_path(file.path)
        if other := seen.get(file.path.lower()):
            raise _unsafe(f"{file.path!r} and {other!r} would be one file")
        seen[file.path.lower()] = file.path
        if not 0 <= file.size <= MAX_FILE_BYTES:
            raise _unsafe(f"{file.path} has {file.size} bytes; at most {MAX_FILE_BYTES} are allowed")
    for path in seen:
        for parent in parents(path):
            if parent in seen:
                raise _unsafe(f"{seen[parent]!r} would be a file and a folder")
    if sum(file.size for file in files) > MAX_BUNDLE_BYTES:
        raise _unsafe(f"the files have more than {MAX_BUNDLE_BYTES} bytes together")


def check_path(path: str) -> str:
    """The path itself; RefusedError CL-E408 when a bundle can't hold it."""
    if not PATH.fullmatch(path) or any(part in ("", ".", "..") for part in path.split("/")):
        raise _unsafe(f"{path!r} can't be a path in a bundle")
    return path


def parents(path: str) -> list[str]:
    """The folders that a path stands in: `a/b/c` gives `a` and `a/b`."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _unsafe(message: str) -> RefusedError:
    return RefusedError(message, code="CL-E408", where=MANIFEST, hint="don't use this bundle")
