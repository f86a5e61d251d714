"""Every code that Cloche raises: code -> (title, what to do). `cloche explain` and the docs print it."""

from __future__ import annotations

CODES: dict[str, tuple[str, str]] = {
    "CL-E100": ("The input is wrong", "Read `details`: it names the row, the field and what was expected."),
    "CL-E101": ("The body is not valid", "Send JSON (RFC 8259): no NaN, no trailing comma, UTF-8."),
    "CL-E102": ("The body has the wrong form", 'Send one object, a list of objects or {"rows": [...]}.'),
    "CL-E103": ("A field is not known", "Remove it, or check its spelling against `cloche models show`."),
    "CL-E104": ("A field is missing", "Send every input of the signature; see `cloche models show`."),
    "CL-E105": (
        "A value has the wrong type",
        'Send the type that the signature names (`cloche models show`): 41 is a number, "41" is text, and neither '
        "is read as the other, since a guess could change the answer.",
    ),
    "CL-E106": ("A value is missing", "The model was packed with rows that never miss this value: send one."),
    "CL-E107": ("A number is not finite", "Send a finite number; NaN is taken only where missing is allowed."),
    "CL-E108": (
        "A category was never seen",
        'Send one that the model was packed with, or set on_invalid = "flag".',
    ),
    "CL-E109": (
        "A number is outside what was seen",
        'Check its unit, or set on_invalid = "flag" to answer all the same.',
    ),
    "CL-E110": ("A shape is wrong", "Send the shape that the signature names; -1 stands for any number."),
    "CL-E111": ("A tensor is described wrongly", "Name, datatype, shape and data must agree."),
    "CL-E112": ("The binary part has the wrong length", "Lengths must add up to the body's exactly."),
    "CL-E113": ("A limit was passed", "Send fewer or smaller values; `cloche.toml` [serve] has the limits."),
    "CL-E114": ("The body is too large", "Send it in parts; the limit is in the message."),
    "CL-E115": (
        "The media type is not understood",
        "Send what the message names; on /v2 application/json or application/octet-stream. Content-Encoding may "
        "be gzip, deflate or zstd.",
    ),
    "CL-E116": ("The path is ambiguous", "Send it without //, .., %2f or ;."),
    "CL-E117": ("A header or parameter is wrong", "The message names it and what it may hold."),
    "CL-E118": ("This input makes the model crash", "It is refused for ten minutes; mend the model."),
    "CL-E119": ("The request came too slowly", "Send the headers within 10 s and the body at 1 KiB/s or more."),
    "CL-E120": ("The request is not HTTP/1.1", "Use an HTTP client; nothing of the request was taken."),
    "CL-E121": ("The answer's form is not known", "Accept one of the media types that the message names."),
    "CL-E122": (
        "A key is not in the look-up table",
        'Send one that is, or set missing = "null" in [online.X.features].',
    ),
    "CL-E200": ("You asked wrongly", "Read the message; `--help` shows what can be asked."),
    "CL-E201": ("A setting is wrong", "The message names the key and what it may hold."),
    "CL-E202": ("A setting is not known", "Remove it or mend its spelling."),
    "CL-E203": ("A reference is malformed", "Write name, name:3 or name@alias."),
    "CL-E204": ("Rows and labels don't fit", "Give as many labels as rows, and at least one row."),
    "CL-E205": ("A framework is not known", "Pack a scikit-learn model, an ONNX file or a Python class."),
    "CL-E206": ("A file can't be read", "Check the path and the format: .parquet, .csv or .jsonl."),
    "CL-E207": ("TLS can't be set up", "Name a certificate and its key, both PEM, in [serve] tls."),
    "CL-E208": ("A look-up table is described wrongly", "Table, key and columns stand in [online.X.features]."),
    "CL-E209": (
        "A source or a sink is described wrongly",
        "Write a file, a glob, or a database's address with ?table=NAME (or ?query=SELECT…) and its key.",
    ),
    "CL-E210": (
        "Rows don't fit the sink's table",
        "Add the columns that the message names, or name a table that is not there yet: it is made.",
    ),
    "CL-E300": ("It is not there", "List what is there with `cloche models ls`."),
    "CL-E301": ("No such model, version or alias", "List them with `cloche models ls`."),
    "CL-E302": ("No such key", "List them with `cloche keys ls`."),
    "CL-E303": ("No such file", "Check the path."),
    "CL-E304": ("No such path", "See `/docs` for the paths that are served."),
    "CL-E305": ("No such deployment or version is live", "GET /v2/models/<name> lists what is live."),
    "CL-E306": ("The method is not allowed here", "See the Allow header."),
    "CL-E320": ("No such batch run", "List them with `cloche batch ls`; the start of an id is enough."),
    "CL-E400": ("Refused", "Read the message: it names the rule."),
    "CL-E401": (
        "A key is needed",
        "Send `Authorization: Bearer clk_...`; make one with `cloche keys create`. Keys are needed where "
        "cloche.toml says keys = true, and always when others can reach the address.",
    ),
    "CL-E402": ("The key is not good", "It is unknown, revoked or expired; make a new one."),
    "CL-E403": ("The key lacks the scope", "Make one with the scope that the message names."),
    "CL-E404": (
        "A file does not match its digest",
        "The bundle was changed after packing, by a fault or by somebody: get it anew from whoever packed it, "
        "and see that it is whole with `cloche verify`. It is never served as it is.",
    ),
    "CL-E405": ("The signing key is not trusted", "If you know it: `cloche verify FILE --trust KEY`."),
    "CL-E406": ("Code is not allowed", "Start with --allow-code, or set allow_code = true under [serve]."),
    "CL-E407": (
        "A pickle is read only on request",
        "Reading a pickle can run any code of whoever wrote it. If you trust it: --trust-pickle, at packing time "
        "only; it is read in a process without network, and the bundle holds no pickle.",
    ),
    "CL-E408": ("The archive is not safe", "It holds something that a bundle never holds."),
    "CL-E409": (
        "Not open to the network without keys and TLS",
        "Make a key and set [serve] tls, or say that a proxy ends TLS.",
    ),
    "CL-E410": ("The golden examples failed", "The model answers differently here than when it was packed."),
    "CL-E411": ("A process without network can't be made here", "Install bubblewrap, or pack from Python."),
    "CL-E412": (
        "Not enough memory",
        "The model would take more than is free (or than the container may have). Free some, start fewer "
        "workers, or raise the limit.",
    ),
    "CL-E413": (
        "Taken back before",
        "This version harmed when it was deployed, so it is blocked; `cloche history` says why. Deploy another, "
        "or let it through with `cloche unblock`.",
    ),
    "CL-E414": (
        "It would break callers",
        "What callers send or read would have to change. Tell them, then add --breaking.",
    ),
    "CL-E415": (
        "Not a name of this host",
        "The Host header must name an address, localhost or a name of the certificate: no web page that gives "
        "this host another name is answered.",
    ),
    "CL-E416": (
        "A database's role may not do this",
        "Grant what the message names. Without a ledger of its own in the sink's database a run can't tell what "
        "is safe: --at-least-once does without.",
    ),
    "CL-E500": ("Held by something else", "The message names what."),
    "CL-E501": (
        "Cloche is running already",
        "One `cloche up` serves a data folder; the message names its process. Stop that with Ctrl-C or "
        "`kill PID`, or use another data folder (CLOCHE_DATA) and another --port.",
    ),
    "CL-E502": ("It exists already", "Choose another name."),
    "CL-E503": ("The port is taken", "Choose another with --port."),
    "CL-E504": ("Made by another version of Cloche", "Update Cloche, or use another data folder."),
    "CL-E505": (
        "Another rollout stands in the way",
        "One at a time goes on a deployment, and only to a version that has not all of the traffic already.",
    ),
    "CL-E506": (
        "Another controller leads",
        "Of the machines that share a database one decides; it goes on by itself.",
    ),
    "CL-E507": (
        "Another push stands in the way",
        "Each file of a bundle is sent by one push at a time, from where it is: push again, and it goes on.",
    ),
    "CL-E508": (
        "The candidate is not loaded yet",
        "Nothing gets all of the traffic before every worker has it warm: promote it from its first step on.",
    ),
    "CL-E509": (
        "The source has changed",
        "A run reads what there was when it began. Put that back and resume, or begin another run.",
    ),
    "CL-E510": ("Another process is at this run", "One goes on with it at a time: wait, or stop it and resume."),
    "CL-E520": (
        "A batch run is held",
        "One process at a time goes on with a run, and one run at a time goes on under a name: see which with "
        "`cloche batch ls`, wait for it, or stop it with `cloche batch cancel`.",
    ),
    "CL-E521": (
        "The batch run can't go on",
        "It is over, or what it was begun with is not there any more: begin another with `cloche batch run`.",
    ),
    "CL-E600": ("Busy", "Try again after the time in Retry-After."),
    "CL-E601": ("Overloaded", "The request could not have been answered in time, so it was not begun."),
    "CL-E602": ("Too late", "The deadline passed; raise it with Cloche-Deadline or in cloche.toml."),
    "CL-E603": ("Not ready", "The model is loading or the process is draining."),
    "CL-E604": ("Too many requests", "The key's rate limit is reached; wait for Retry-After."),
    "CL-E605": ("Out of reach", "Nothing answers at this address."),
    "CL-E606": ("The store can't be used", "Check that it is there, writable and not full."),
    "CL-E607": (
        "A look-up table can't be read",
        "Check its database; requests are answered again once it is back.",
    ),
    "CL-E608": (
        "A source or a sink is out of reach",
        "What is safe stays: resume the run once the database answers or the disk has room.",
    ),
    "CL-E700": ("Something optional is missing", "Install what the hint names."),
    "CL-E701": ("A package is missing", "Install what the hint names."),
    "CL-E800": ("The model can't be packed exactly", "The message says why."),
    "CL-E801": ("The converted model answers differently", "The message says which rows, how far and why."),
    "CL-E802": ("The converter does not know this model", "Pack it as a Python class instead."),
    "CL-E803": ("The ONNX file is not accepted", "The message says what is wrong with it."),
    "CL-E900": ("The model failed", "Its error is in the log under the request id."),
    "CL-E901": ("The model answered with the wrong shape", "As many rows must come out as go in."),
    "CL-E902": ("The model's process died", "It is started again; see the log for the reason."),
    "CL-E999": ("A bug in Cloche", "A report was saved; its path is in the message."),
}
