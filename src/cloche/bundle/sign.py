"""Signs a manifest with Ed25519 and checks who signed it (a detached DSSE envelope, `seal.json`)."""

from __future__ import annotations

import os
import shlex
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloche.core.errors import RefusedError

PAYLOAD_TYPE = "application/vnd.cloche.manifest.v1+json"
KEY_FILE = "signing.key"


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Signature is one signer's public key and what it says of the manifest, both in hex."""

    keyid: str
    sig: str


class Seal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A Seal is the content of `seal.json`; the payload, the manifest's bytes, stands beside it."""

    payload_type: str
    signatures: tuple[Signature, ...]


class Signer:
    """A Signer holds a private key and seals manifests with it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        #: 64 hex digits, as the trust store keeps them.
        self.public_key = key.public_key().public_bytes_raw().hex()

    @classmethod
    def make(cls) -> Signer:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of_bytes(cls, private: bytes) -> Signer:
        """The signer of a private key of 32 bytes; ValueError when they are not."""
        return cls(Ed25519PrivateKey.from_private_bytes(private))

    @classmethod
    def of_folder(cls, data: Path) -> Signer:
        """The signer of a data folder; its key is made at first use and is this user's alone (0600).

        Raises RefusedError when others can read the key or it is not one.
        """
        path = data / KEY_FILE
        if not path.exists():
            _write_once(path, Ed25519PrivateKey.generate().private_bytes_raw().hex() + "\n")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise RefusedError(
                f"the signing key {path} can't be read: {error.strerror}",
                hint="it must be a file of yours, and no link",
            ) from None
        with os.fdopen(descriptor) as file:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                raise RefusedError(
                    f"others can read the signing key {path}", hint=f"if nobody has: chmod 600 {path}"
                )
            text = file.read(129)
        try:
            return cls.of_bytes(bytes.fromhex(text.strip()))
        except ValueError:
            raise RefusedError(
                f"{path} is not a signing key", hint="restore it, or move it away: a new one is made"
            ) from None

    def seal(self, manifest: bytes) -> bytes:
        """The bytes of `seal.json` over the bytes of `manifest.json`."""
        signature = Signature(keyid=self.public_key, sig=self._key.sign(_envelope(manifest)).hex())
        return msgspec.json.encode(Seal(payload_type=PAYLOAD_TYPE, signatures=(signature,)))


def check_seal(manifest: bytes, seal: bytes, trust: Collection[str] | None, of: Path) -> str:
    """The public key that signed the manifest of a bundle or archive; with `trust` None, whoever it is.

    Raises RefusedError: CL-E404 when the seal does not fit, CL-E405 when nobody trusted signed.
    """
    broken = RefusedError(
        "seal.json does not fit manifest.json", code="CL-E404", where="seal.json", hint="get the bundle anew"
    )
    try:
        read = msgspec.json.decode(seal, type=Seal)
        # One way of writing it only, so that no byte can change unseen.
        if msgspec.json.encode(read) != seal or read.payload_type != PAYLOAD_TYPE or not read.signatures:
            raise broken
        for signature in read.signatures:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.keyid))
            key.verify(bytes.fromhex(signature.sig), _envelope(manifest))
            if signature.keyid != signature.keyid.lower() or signature.sig != signature.sig.lower():
                raise broken
    except (msgspec.MsgspecError, ValueError, InvalidSignature):
        raise broken from None
    signers = [signature.keyid for signature in read.signatures]
    known = [signer for signer in signers if trust is None or signer in trust]
    if not known:
        raise RefusedError(
            f"the bundle is signed by a key that is not trusted here: {signers[0]}",
            code="CL-E405",
            where=str(of),
            hint=f"if you know whose key it is, trust it, and do this again: "
            f"cloche verify {shlex.quote(str(of))} --trust {signers[0]}",
        )
    return known[0]


def _envelope(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _write_once(path: Path, text: str) -> None:
    """Make a file that others can't read; when another process was first, its file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".signing-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink()
