"""What people call from Python: pack a model, load a bundle, move an alias."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloche.app.loaded import Loaded
from cloche.app.project import Project, open_project
from cloche.bundle.bundle import Bundle
from cloche.bundle.converters._source import list_classes
from cloche.bundle.converters.base import Converted, ConvertOptions, find_converter
from cloche.bundle.golden import ATOL, ROWS, RTOL
from cloche.bundle.lineage import trace
from cloche.bundle.pack import PackOptions, Progress, build
from cloche.bundle.pickles import convert_pickle, is_pickle
from cloche.bundle.sbom import package_of
from cloche.core.errors import ConfigError, NotFoundError, RefusedError
from cloche.core.reference import check_name
from cloche.registry import ModelVersion
from cloche.settings.kinds import looks_like_path

__all__ = ["Loaded", "Project", "alias", "load", "open_bundle", "open_project", "pack", "pack_into"]


def pack(
    model: object,
    X: object | None = None,
    y: object | None = None,
    *,
    name: str,
    code: str | Path | Sequence[str | Path] | None = None,
    requirements: str | Sequence[str] = (),
    golden: int = ROWS,
    rtol: float = RTOL,
    atol: float = ATOL,
    about: str | None = None,
    licence: str | None = None,
    task: str | None = None,
    trust_pickle: bool = False,
    directory: Path | str | None = None,
) -> Bundle:
    """Pack a model as the next version of `name`: convert, prove, measure, sign and register it.

    What is packed once more, from the very same model, rows and words, keeps the version that it has.

    Parameters
    ----------
    model
        A fitted model, the path of an ONNX file or of a folder that Hugging Face or MLflow saved, or a Python
        class with `load` and `predict` (also as `"sentiment.py:Sentiment"`).
    X, y
        Rows that the model was not trained on, and their labels: a frame, an array or a dict of columns.
        Without rows, inputs are drawn; without labels, there is no baseline quality.
    code, requirements
        For a Python class: the files that travel (default: the one that defines it) and what it needs.
    golden, rtol, atol
        How many examples are kept, and how near numbers must come: atol + rtol * |wanted|.
    about, licence
        What the card says of its purpose and limits, and its licence.
    task
        For a Hugging Face folder that does not say it: "text-classification" or "embeddings".
    trust_pickle
        Read the path of a .pkl or .joblib file, which can run any code, in a process without network.
    directory
        Where the project is looked for; default: the current folder and those above it.

    Raises
    ------
    ConversionError
        When the bundle would not answer as the model does.
    ConfigError, MissingExtraError, ModelError
        When it is no model that Cloche knows, a package is missing, or the model itself fails.
    """
    options = PackOptions(golden=golden, rtol=rtol, atol=atol, licence=licence, about=about)
    check_name(name, "name of a model")
    with open_project(directory) as project:
        return pack_into(
            project,
            model,
            X,
            y,
            name=name,
            options=options,
            code=None if code is None else _texts(code),
            requirements=_texts(requirements),
            task=task,
            trust_pickle=trust_pickle,
        )


def pack_into(
    project: Project,
    model: object,
    X: object | None,
    y: object | None,
    *,
    name: str,
    options: PackOptions | None = None,
    code: tuple[str, ...] | None = None,
    requirements: tuple[str, ...] = (),
    task: str | None = None,
    trust_pickle: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """`pack` into a project that is open; `progress` hears what is done next."""
    options = options or PackOptions()
    if progress is not None:
        progress("converting")
    convert = ConvertOptions(
        code=code,
        requirements=requirements,
        task=task,
        trust_pickle=trust_pickle,
        rtol=options.rtol,
        atol=options.atol,
    )
    converted = _convert(model, X, convert)
    if (code is not None or requirements) and converted.runtime.kind != "python":
        raise ConfigError(
            f"{converted.description} is no Python class: no code travels with it, and it needs no packages",
            hint="leave out code and requirements",
        )
    with project.bundles.stage() as staging:
        bundle = build(
            converted,
            name=name,
            y=y,
            folder=staging / "bundle",
            signer=project.signer,
            lineage=trace(Path.cwd(), map(package_of, requirements)),
            options=options,
            progress=progress,
        )
        return _packed_before(project, bundle) or project.register(bundle)


def _texts(given: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One text or several."""
    return (str(given),) if isinstance(given, (str, Path)) else tuple(map(str, given))


def _packed_before(project: Project, bundle: Bundle) -> Bundle | None:
    """The highest version of this bundle's model, where it was made of the same and is whole."""
    try:
        latest = project.open(bundle.name)
        if latest.signer == bundle.signer and latest.repeats(bundle):
            latest.verify()
            return latest
    except (NotFoundError, RefusedError):
        pass
    return None


def _convert(model: object, X: object | None, options: ConvertOptions) -> Converted:
    """A string is a path, but for `file.py:Class`, which the converter takes apart."""
    if isinstance(model, str) and ".py:" not in model:
        model = Path(model)
    if isinstance(model, Path) and ".py:" not in model.name and not model.exists():
        raise NotFoundError(f"there is no file {model}", code="CL-E303", hint="check the path")
    if isinstance(model, Path) and model.suffix == ".py":
        there = list_classes(model)
        raise ConfigError(
            f"{model} is a file of code, and a class in it is packed",
            code="CL-E205",
            hint=f"write {model}:{there[0] if there else 'Class'}"
            + (f"; its classes are {', '.join(there)}" if len(there) > 1 else ""),
        )
    if isinstance(model, Path) and is_pickle(model):
        return convert_pickle(model, X, options, trusted=options.trust_pickle)
    return find_converter(model).convert(model, X, options)


def load(model: Bundle | Path | str, *, allow_code: bool = False, directory: Path | str | None = None) -> Loaded:
    """Load a bundle into this process: `"fraud@latest"`, a Bundle, or the path of its folder.

    The same bytes and the same code answer as when it is served: it is verified, its golden examples are
    run, and rows are checked against its signature. A bundle with Python code runs in a process of its own,
    which ends with this one, and only with `allow_code=True` or `allow_code = true` under `[serve]`; there is no
    sandbox around it, so that it may do what you may.

    Raises NotFoundError, and RefusedError for a bundle that was changed, whose signer is unknown (CL-E405),
    whose golden examples fail (CL-E410), or that carries code where none is allowed (CL-E406).
    """
    if isinstance(model, Bundle) and (allow_code or model.manifest.runtime.kind != "python"):
        return Loaded(model, allow_code=allow_code)
    with open_project(directory, create=False) as project:
        bundle = model if isinstance(model, Bundle) else open_bundle(project, model)
        return Loaded(bundle, allow_code=allow_code or project.settings.serve.allow_code)


def open_bundle(project: Project, model: Path | str) -> Bundle:
    """The bundle of a reference, or of the path of a bundle's folder."""
    if isinstance(model, str) and not looks_like_path(model):
        return project.open(model)
    path = Path(model)
    if path.is_file():
        raise ConfigError(
            f"{path} is a file, not a bundle's folder",
            code="CL-E203",
            hint="import an archive with `cloche import`, pack a model file with `cloche pack`",
        )
    return Bundle.open(path, project.trusted())


def alias(model: Bundle | str, name: str, *, directory: Path | str | None = None) -> ModelVersion:
    """Move an alias (`"champion"`) to a registered version; returns that version.

    Raises NotFoundError when there is no such version, ConfigError for `latest`, which can't be moved.
    """
    reference = model.reference if isinstance(model, Bundle) else model
    if reference is None:
        raise ConfigError("this bundle is not registered", code="CL-E203", hint="import or pack it first")
    with open_project(directory) as project:
        project.registry.set_alias(reference, name)
        return project.registry.resolve(reference)
