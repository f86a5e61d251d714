"""The python runtime: a bundle's code runs in a runtime host of its own, where nobody else has started one."""

from __future__ import annotations

from cloche.core.signature import Signature
from cloche.runtimes.base import RuntimePlace, RuntimeSpec
from cloche.runtimes.code import split_entry
from cloche.runtimes.files import Files
from cloche.runtimes.hosted import HostedRuntime
from cloche.runtimes.local_host import start_host


class PythonRuntime:
    """A PythonRuntime is how bundles that carry code are loaded."""

    @classmethod
    def load(cls, spec: RuntimeSpec, signature: Signature, files: Files, place: RuntimePlace) -> HostedRuntime:
        """The runtime over a host that ends with it.

        The requirements are the caller's to check (`requirements.check_requirements`), as is whether code is
        allowed. Raises ConfigError and ModelError when the host can't load the class.
        """
        file, _ = split_entry(spec.entry)
        held = {name: files.read(name) for name in (file, *(name for name in spec.files if name != file))}
        return HostedRuntime(
            signature,
            place.digest,
            timeout_s=place.timeout_s,
            start=lambda: start_host(spec.entry, signature, held, place.digest, output=place.output),
        )
