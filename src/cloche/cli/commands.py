"""The commands: a word for each, where it lives, a sentence and an example."""

from __future__ import annotations

#: command -> where it lives, what it does in a sentence, an example.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "up": (
        "cloche.cli.up:up",
        "Serve a model, or what cloche.toml describes.",
        "cloche up fraud@champion --workers 4",
    ),
    "deploy": (
        "cloche.cli.deploy:deploy",
        "Send a version out to callers, step by step, and take it back if it harms.",
        "cloche deploy fraud:4 --wait",
    ),
    "apply": (
        "cloche.cli.apply:apply",
        "Take over what cloche.toml says now, without a restart.",
        "cloche apply --dry-run",
    ),
    "status": (
        "cloche.cli.status:status",
        "Show which versions have the traffic, and how a rollout goes.",
        "cloche status fraud -w",
    ),
    "promote": (
        "cloche.cli.deploy:promote",
        "Give a candidate all of the traffic now.",
        "cloche promote fraud",
    ),
    "abort": (
        "cloche.cli.deploy:abort",
        "Give a rollout up: stable has all of the traffic.",
        "cloche abort fraud",
    ),
    "pause": ("cloche.cli.deploy:pause", "Keep a rollout at the step where it is.", "cloche pause fraud"),
    "resume": ("cloche.cli.deploy:resume", "Let a paused rollout go on.", "cloche resume fraud"),
    "rollback": (
        "cloche.cli.deploy:rollback",
        "Go back to the version before, at once.",
        "cloche rollback fraud",
    ),
    "unblock": (
        "cloche.cli.deploy:unblock",
        "Let a version that was taken back be deployed again.",
        "cloche unblock fraud:4",
    ),
    "history": (
        "cloche.cli.status:history",
        "Say what happened to deployments: who, what, when and why.",
        "cloche history fraud",
    ),
    "stats": (
        "cloche.cli.stats:stats",
        "Show requests, errors and times of the last hours or days.",
        "cloche stats fraud --last 24h",
    ),
    "scale": (
        "cloche.cli.scale:scale",
        "Have so many workers, whatever cloche.toml says.",
        "cloche scale 4",
    ),
    "pack": (
        "cloche.cli.pack:pack",
        "Turn a model into a bundle and register it.",
        "cloche pack model.onnx --name fraud --data holdout.parquet --label is_fraud",
    ),
    "predict": (
        "cloche.cli.predict:predict",
        "Say what a model answers to one row, or to the rows of a file.",
        "cloche predict fraud@champion rows.csv -o out.csv",
    ),
    "batch run": (
        "cloche.cli.batch:run",
        "Score a whole source into a sink, chunk by chunk.",
        "cloche batch run fraud@champion --source 'data/*.parquet' --sink scores.parquet --key id",
    ),
    "batch resume": (
        "cloche.cli.batch:resume",
        "Go on with a batch run that was stopped, killed or failed.",
        "cloche batch resume nightly",
    ),
    "batch ls": ("cloche.cli.batches:ls", "List batch runs, and when the next are due.", "cloche batch ls"),
    "batch show": (
        "cloche.cli.batches:show",
        "Show one batch run: what it read, wrote and answered.",
        "cloche batch show nightly",
    ),
    "batch cancel": (
        "cloche.cli.batches:cancel",
        "Stop a batch run after its chunk.",
        "cloche batch cancel run_3f",
    ),
    "models ls": ("cloche.cli.models:ls", "List models and their versions.", "cloche models ls"),
    "models show": (
        "cloche.cli.models:show",
        "Show one version: signature, quality, size, speed.",
        "cloche models show fraud:3",
    ),
    "alias": ("cloche.cli.models:alias", "Point an alias at a version.", "cloche alias fraud:3 champion"),
    "diff": ("cloche.cli.models:diff", "Compare two versions.", "cloche diff fraud:2 fraud:3"),
    "push": (
        "cloche.cli.push:push",
        "Send a version to another host.",
        "cloche push fraud:3 --host https://models.example.com:8082",
    ),
    "export": (
        "cloche.cli.archive:export",
        "Write a bundle into one archive file.",
        "cloche export fraud:3 fraud-3.cloche",
    ),
    "import": (
        "cloche.cli.archive:import_",
        "Check an archive file and register its bundle.",
        "cloche import fraud-3.cloche",
    ),
    "verify": (
        "cloche.cli.archive:verify",
        "Check every byte and the signature of a bundle.",
        "cloche verify fraud-3.cloche",
    ),
    "keys create": (
        "cloche.cli.keys:create",
        "Make an API key; it is shown once.",
        "cloche keys create mobile --expires 90d",
    ),
    "keys ls": ("cloche.cli.keys:ls", "List the API keys.", "cloche keys ls"),
    "keys revoke": (
        "cloche.cli.keys:revoke",
        "Revoke an API key; workers refuse it within a second.",
        "cloche keys revoke mobile --yes",
    ),
    "trust add": ("cloche.cli.trust:add", "Believe what a key has signed.", "cloche trust add 3f1c… --name build"),
    "trust ls": ("cloche.cli.trust:ls", "List the keys whose bundles are believed.", "cloche trust ls"),
    "trust remove": ("cloche.cli.trust:remove", "Believe a key no longer.", "cloche trust remove 3f1c…"),
    "audit ls": ("cloche.cli.audit:ls", "List who changed what, and when.", "cloche audit ls --limit 20"),
    "audit verify": (
        "cloche.cli.audit:verify",
        "Check that no row of the audit log was changed or taken out.",
        "cloche audit verify",
    ),
    "config show": (
        "cloche.cli.config:show",
        "Show what is set, and where that was said.",
        "cloche config show",
    ),
    "config explain": (
        "cloche.cli.config:explain",
        "Say what a key of cloche.toml means, and what it is here.",
        "cloche config explain online.fraud.deadline",
    ),
    "config schema": (
        "cloche.cli.config:schema",
        "Print the JSON schema of cloche.toml, for editors.",
        "cloche config schema",
    ),
    "explain": ("cloche.cli.explain:explain", "Say what an error code means.", "cloche explain CL-E104"),
}
#: noun -> a sentence, an example.
GROUPS = {
    "batch": ("Score whole tables, by hand or on a schedule.", "cloche batch ls"),
    "models": ("See what the registry holds.", "cloche models ls"),
    "keys": ("Make, list and revoke API keys.", "cloche keys ls"),
    "trust": ("Say whose bundles are believed.", "cloche trust ls"),
    "audit": ("See who changed what.", "cloche audit verify"),
    "config": ("See what is set.", "cloche config show"),
}
