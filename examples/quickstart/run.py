"""From a fitted model to a live API: train, pack, serve, predict; `make run` runs it. Ctrl-C stops all of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split

import cloche

HERE = Path(__file__).resolve().parent
PORT = int(os.environ.get("PORT", "8080"))


def main() -> int:
    """Run the example; 0 after Ctrl-C, else the exit code of `cloche up`."""
    if not is_free(PORT):
        print(f"port {PORT} is taken: stop what listens there, or choose another:  PORT=8081 make run")
        return 5
    bundle, row = pack_a_model()
    print(f"{bundle}\n", flush=True)
    assert bundle.reference is not None
    cloche_command = str(Path(sys.executable).with_name("cloche"))
    command = [cloche_command, "-C", str(HERE), "up", bundle.reference, "--port", str(PORT), "--json"]
    stopped: list[int] = []
    # Ctrl-C reaches the server as well, which drains; we only wait for it, and pass a SIGTERM on.
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        assert server.stdout is not None
        # One line comes once it serves; nothing comes when it could not start.
        if said := server.stdout.readline():
            ask(row, json.loads(said)["deployments"][0])
        code = server.wait()
        return 0 if stopped and code == 130 else code
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()


def is_free(port: int) -> bool:
    """Whether nothing listens there: told before the training, not after it."""
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            ours.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pack_a_model() -> tuple[cloche.Bundle, dict[str, float]]:
    """Train on 426 of the 569 tumours (real data, ships with scikit-learn), pack with the other 143."""
    data = load_breast_cancer(as_frame=True)
    mean = [name for name in data.data.columns if name.startswith("mean ")]
    X = data.data[mean].rename(columns=lambda name: name.replace(" ", "_"))
    y = data.target.map(dict(enumerate(data.target_names)))
    X_train, X_holdout, y_train, y_holdout = train_test_split(X, y, random_state=0)
    print(f"training on {len(X_train)} tumours with {X.shape[1]} measurements each", flush=True)
    model = GradientBoostingClassifier(random_state=0).fit(X_train, y_train)
    bundle = cloche.pack(model, X_holdout, y_holdout, name="tumour", directory=HERE)
    return bundle, X_holdout.iloc[0].to_dict()


def ask(row: dict[str, float], served: dict[str, str]) -> None:
    """Ask once from Python, then show how to ask from a shell; numbers are rounded for the eye only."""
    print(f"serving    {served['model']} at {served['predict']}")
    print(f"docs       {served['docs']}")
    with cloche.Client(f"http://127.0.0.1:{PORT}") as client:
        answer = client.predict("tumour", row)
    shares = ", ".join(f"{label} {share:.3f}" for label, share in answer["probabilities"].items())
    print(f"asked      client.predict('tumour', {{'mean_radius': {row['mean_radius']:.4g}, … 9 more}})")
    print(f"answered   {answer['label']}  ({shares})")
    print("\nTry it yourself, from another terminal; Ctrl-C here stops the server:\n")
    print(f"{served['try']}\n", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)  # before anything served
