"""Every key of `cloche.toml`: what it may hold, its default and its meaning."""

from __future__ import annotations

from cloche.settings.batch_keys import BATCH
from cloche.settings.key import Key
from cloche.settings.kinds import (
    COLUMNS,
    DATABASE,
    DEVICE,
    FLAG,
    HEADER,
    HOST,
    LEAST_WORKERS,
    MAX_WORKERS,
    MODEL,
    MOST_WORKERS,
    ON_INVALID,
    ON_MISSING,
    PATH,
    PORT,
    RATE,
    STEPS,
    STRATEGY,
    TEXT,
    VERSION,
    WORKERS,
    duration,
    share,
    size,
)

#: Every key there is, in the order of docs/reference/settings.md.
KEYS = (
    Key(
        path="version",
        kind=VERSION,
        default=1,
        meaning="The version of this file's shape.",
    ),
    Key(
        path="project.name",
        kind=TEXT,
        meaning="What people call this project.",
    ),
    Key(
        path="project.data",
        kind=PATH,
        default=".cloche",
        refers=True,
        meaning="The folder for the database, the bundles and the signing key, relative to this file.",
    ),
    Key(
        path="project.database",
        kind=DATABASE,
        refers=True,
        secret=True,
        meaning="Another database than `state.db` in the data folder: sqlite:///… or postgresql://…",
    ),
    Key(
        path="project.storage",
        kind=PATH,
        refers=True,
        meaning="Another folder for the bundles than `bundles` in the data folder; machines that share a database "
        "share it too.",
    ),
    Key(
        path="serve.host",
        kind=HOST,
        default="127.0.0.1",
        meaning="The address to listen on. Beyond loopback, keys and TLS are demanded.",
    ),
    Key(
        path="serve.port",
        kind=PORT,
        default=8080,
        meaning="The port to listen on, 1 to 65535; 0 takes one that is free.",
    ),
    Key(
        path="serve.grpc",
        kind=PORT,
        meaning="The port for the Open Inference Protocol over gRPC (8081 is usual); 0 takes one that is free.",
    ),
    Key(
        path="serve.admin",
        kind=PORT,
        meaning="The port of the admin API, 0 to 65535; 0 takes one that is free. Without it there is none.",
    ),
    Key(
        path="serve.workers",
        kind=WORKERS,
        default="cores",
        meaning=f'How many processes serve, 1 to {MAX_WORKERS}; "cores" is one for each usable core.',
    ),
    Key(
        path="serve.workers.min",
        kind=LEAST_WORKERS,
        default=1,
        meaning="The least, where the load decides how many serve: `workers = { min = 1, max = 8 }`.",
    ),
    Key(
        path="serve.workers.max",
        kind=MOST_WORKERS,
        default="cores",
        meaning="The most then; where a model runs in the workers themselves, never more than usable cores.",
    ),
    Key(
        path="serve.allow_code",
        kind=FLAG,
        default=False,
        meaning="Whether bundles that carry Python code may run, in processes of their own.",
    ),
    Key(
        path="serve.isolate_above",
        kind=size("1kB", "1024GB"),
        default="512MB",
        meaning="From which memory on a model runs in a host that the workers share, not in each of them, 1kB to "
        "1024GB; what counts is what loading it took when it was packed.",
    ),
    Key(
        path="serve.load_timeout",
        kind=duration("1s", "1d"),
        default="5m",
        meaning="How long a model may take to load, 1s to 1d.",
    ),
    Key(
        path="serve.lame_duck",
        kind=duration("0s", "10m"),
        default="1s",
        meaning="How long a worker that stops still accepts connections, 0s to 10m.",
    ),
    Key(
        path="serve.max_body",
        kind=size("1kB", "2GB"),
        default="64MB",
        meaning="The largest body of a request, 1kB to 2GB.",
    ),
    Key(
        path="serve.tls.cert",
        kind=PATH,
        needed=True,
        meaning="The file of the certificate and its chain, PEM; read again when it changes.",
    ),
    Key(
        path="serve.tls.key",
        kind=PATH,
        needed=True,
        meaning="The file of the key to it, PEM, without a password.",
    ),
    Key(
        path="online.*.model",
        kind=MODEL,
        needed=True,
        meaning="Required. `name:3`, `name@champion`, or the path of a bundle or model file (`./m.onnx`).",
    ),
    Key(
        path="online.*.deadline",
        kind=duration("1ms", "1h"),
        default="1s",
        meaning="How long a caller waits at most, 1ms to 1h; what can't be answered in time is not begun.",
    ),
    Key(
        path="online.*.on_invalid",
        kind=ON_INVALID,
        default="flag",
        meaning="What becomes of unknown categories and numbers out of range: reject, flag or allow.",
    ),
    Key(
        path="online.*.device",
        kind=DEVICE,
        default="cpu",
        meaning="Where the model is computed: cpu, or cuda where ONNX Runtime has it (the extra `gpu`).",
    ),
    Key(
        path="online.*.cache.size",
        kind=size("1kB", "64GB"),
        needed=True,
        meaning="How many bytes of answers a worker remembers, 1kB to 64GB; without it nothing is.",
    ),
    Key(
        path="online.*.cache.ttl",
        kind=duration("1ms", "365d"),
        default="10m",
        meaning="How long an answer is remembered, 1ms to 365d.",
    ),
    Key(
        path="online.*.access.keys",
        kind=FLAG,
        default=False,
        meaning="Whether callers need an API key (`cloche keys create`).",
    ),
    Key(
        path="online.*.access.limits.*",
        kind=RATE,
        meaning="How many requests the key of this name may make; `default` is for every other caller.",
    ),
    Key(
        path="online.*.features.source",
        kind=DATABASE,
        needed=True,
        refers=True,
        secret=True,
        meaning="The database that inputs are read from: sqlite:///… or postgresql://…",
    ),
    Key(
        path="online.*.features.table",
        kind=TEXT,
        needed=True,
        meaning="The table with a row a key, with its schema where it has one.",
    ),
    Key(
        path="online.*.features.key",
        kind=TEXT,
        needed=True,
        meaning="The column that callers send, a whole number or a text; it wants an index.",
    ),
    Key(
        path="online.*.features.columns",
        kind=COLUMNS,
        needed=True,
        meaning="The inputs that are read from the columns of the same names.",
    ),
    Key(
        path="online.*.features.ttl",
        kind=duration("0s", "365d"),
        default="10s",
        meaning="How long a worker remembers what it read, 0s to 365d.",
    ),
    Key(
        path="online.*.features.missing",
        kind=ON_MISSING,
        default="reject",
        meaning="What becomes of a key that is not there: reject (422), or null for inputs that may be missing.",
    ),
    Key(
        path="online.*.objectives.p99",
        kind=duration("1ms", "1h"),
        meaning="99 of 100 answers are there within this time, 1ms to 1h; in a rollout a slower one is a bad one.",
    ),
    Key(
        path="online.*.objectives.error_rate",
        kind=share("0.001%", "50%"),
        meaning="The share of requests that may fail, 0.001% to 50%; a candidate that is above it is taken back.",
    ),
    Key(
        path="online.*.rollout.strategy",
        kind=STRATEGY,
        default="canary",
        meaning="How another version goes out: canary (step by step), blue-green (all at once), shadow (copies of "
        "requests, for nobody) or ab (a share of the callers, compared).",
    ),
    Key(
        path="online.*.rollout.steps",
        kind=STEPS,
        default=["5% for 10m", "50% for 10m", "100%"],
        meaning="A canary's steps: the candidate's share of the traffic, and for how long at least. A shadow and "
        "an ab have one.",
    ),
    Key(
        path="online.*.rollout.ramp",
        kind=duration("0s", "1h"),
        default="10s",
        meaning="How long the share takes to grow to that of a step, in ten moves, 0s to 1h.",
    ),
    Key(
        path="online.*.rollout.bake",
        kind=duration("0s", "1d"),
        default="1m",
        meaning="How long a candidate with all of the traffic is watched before it is promoted, 0s to 1d.",
    ),
    Key(
        path="online.*.rollout.margin",
        kind=share("0.01%", "50%"),
        default="0.5%",
        meaning="By how much a candidate's share of bad answers may be above stable's: less takes longer to tell.",
    ),
    Key(
        path="online.*.rollout.sticky",
        kind=HEADER,
        meaning="The header that says who is asked for, so that one caller stays with one version.",
    ),
    Key(
        path="online.*.rollout.keep_previous_warm",
        kind=duration("0s", "7d"),
        default="30m",
        meaning="How long the version before the stable one stays loaded, for a rollback at once, 0s to 7d.",
    ),
    *BATCH,
)
