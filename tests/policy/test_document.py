"""What may stand in a ceiling file, and that the quick reader agrees with pydantic about it."""

import json
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import ceiling_schema, example_ceiling, load_layer
from mxc_kernel.policy.document import CeilingFile, NotPlain, ProjectFile, parse, plainly
from mxc_kernel.policy.schema import validate
from tests.policy import laws

TEXTS = (
    "/a ~/b ${notebook_dir} c $x 30s off 2GiB 0B 60706-61183 0-9 closed hosts open safe trusted "
    "magics none a.org *.org LANG 1X"
)
texts = st.sampled_from(["", *TEXTS.split()])
lists = st.lists(texts, max_size=2)
values = st.one_of(texts, st.integers(-1, 300), st.booleans(), st.floats(), lists)
# For each key values that are right, so that whole files come out right often enough.
PATHS = [[], ["/a"], ["~/b", "${notebook_dir}"]]
SECTIONS = {
    "filesystem": {
        "readonly": PATHS,
        "readwrite": [["/c"], ["/a", "/c"]],
        "denied": PATHS,
        "x": [],
    },
    "network": {"mode": ["closed", "hosts", "open"], "hosts": [[], ["a.org", "::1"]]},
    "limits": {
        "cell_timeout": ["30s", "off"],
        "cpu_time": ["30s", "off"],
        "memory": ["2GiB", "off"],
        "processes": [1, "off"],
        "open_files": [100, "off"],
        "file_size": ["2GiB", "off"],
        "scratch_space": ["2GiB", "off"],
        "scratch_files": [100, "off"],
        "grant_space": ["2GiB", "off"],
        "grant_files": [100, "off"],
        "output": ["1KiB"],
        "rich_output": ["1MiB"],
        "single_output": ["1KiB"],
        "outputs": [5],
        "output_rate": [100],
        "session_output": ["1GiB"],
        "output_exceeded": ["continue", "stop"],
    },
    "output": {"html": ["text", "safe"]},
    "redaction": {
        "literals": [[], ["eight or more"]],
        "patterns": [[], [{"name": "a", "pattern": "ACME-[0-9]"}], [{"name": "a"}]],
        "exceptions": [["eight or more"]],
        "files": [[]],
    },
    "environment": {"names": [[], ["LANG"]]},
    "start": {"readonly": PATHS, "readwrite": PATHS},
    "sandbox": {
        "uids": ["60706-61183"],
        "python": ["/a"],
        "executable": ["~/a"],
        "start_timeout": ["5s", "off"],
    },
    "unknown": {"x": []},
}


def section(name):
    keys = {
        key: st.one_of(*[st.sampled_from(right)] * 5, values) if right else values
        for key, right in SECTIONS[name].items()
    }
    return st.tuples(st.just(name), st.fixed_dictionaries({}, optional=keys) | values)


sections = st.sampled_from(sorted(SECTIONS)).flatmap(section)
documents = st.tuples(
    st.lists(sections, max_size=3).map(dict),
    st.one_of(st.just({}), st.builds(lambda value: {"requests": value}, values)),
).map(lambda parts: parts[0] | parts[1])


@laws
@given(documents, st.sampled_from([CeilingFile, ProjectFile]))
def test_the_quick_reader_and_pydantic_agree(data, model):
    try:
        judged = validate(data, "file", model)
    except SandboxPolicyError:
        with pytest.raises(NotPlain):
            plainly(data, model)
    else:
        assert plainly(data, model) == judged


@laws
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    try:
        parse(content, "file", project=False)
    except SandboxPolicyError as error:
        named = error.message
    else:
        named = "file"
    assert named.startswith("file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[filesytem]", ["unknown key filesytem", "'filesystem'"]),
        ("[filesystem]\nreadonyl = []", ["unknown key filesystem.readonyl", "'readonly'"]),
        ("[limits]\nqqq = 1", ["unknown key limits.qqq", "cell_timeout, memory"]),
        ("[limits]\nmemory = 2", ["limits.memory", "quotes"]),
        ('[limits]\nmemory = "2GB"', ["limits.memory", "'2GB'", "GiB"]),
        ('[limits]\nprocesses = "64"', ["limits.processes"]),
        ("[limits]\nprocesses = true", ["limits.processes"]),
        ("[limits]\nprocesses = 0", ["limits.processes", "between 1"]),
        ('[limits]\noutput = "off"', ["limits.output"]),
        ('[limits]\ncell_timeout = "soon"', ["limits.cell_timeout", '"30s"']),
        ('[filesystem]\nreadonly = "/a"', ["filesystem.readonly", "brackets"]),
        ('[filesystem]\nreadonly = ["/a"]\nreadwrite = ["/a"]', ["'/a' is listed twice"]),
        ('filesystem = "/a"', ["filesystem", "section"]),
        ('[network]\nhosts = ["a.org"]', ["network", 'mode = "hosts"']),
        ('[network]\nmode = "hosts"\nhosts = ["*.a.org"]', ["network.hosts.0", "Patterns"]),
        ('[output]\nhtml = "raw"', ["output.html", "'safe'"]),
        ('[environment]\nnames = ["*"]', ["environment.names.0"]),
        ('[sandbox]\nuids = "0-10"', ["sandbox.uids", "60706-61183"]),
        ('[sandbox]\nuids = "60000-65534"', ["sandbox.uids"]),
        ('[sandbox]\nstart_timeout = "off"', ["start_timeout"]),
        ('requests = "all"', ["requests", "'magics'"]),
        ("a = 1\na = 2", ["not TOML"]),
        ("x = " + "9" * 5000, ["not TOML"]),
        ("x = " + "[" * 5000, ["not TOML"]),
    ],
)
def test_mistakes_are_named_with_a_way_out(text, words):
    with pytest.raises(SandboxPolicyError) as error:
        parse(text.encode(), "/where/ceiling.toml", project=False)
    for word in ["/where/ceiling.toml", *words]:
        assert word in str(error.value)


def test_the_example_can_be_used_as_it_is(layers):
    layers.write(layers.user, example_ceiling())
    layer = load_layer(
        "user", str(layers.user), notebook_dir=str(layers.project), environ=layers.environ
    )
    assert layer.policy.filesystem.readwrite == (str(layers.project),)
    assert layer.start.readonly == (str(layers.project),)


def test_what_the_example_has_in_comments_is_right_too():
    text = re.sub(r"^# (\[\w+\]|\w+ = .*)$", r"\1", example_ceiling(), flags=re.MULTILINE)
    document = parse(text.encode(), "example", project=False)
    assert document.sandbox.uids == "60706-61183"
    assert document.filesystem.denied


def test_the_schema_covers_every_key_of_the_example():
    schema = ceiling_schema()
    json.dumps(schema)
    assert schema["additionalProperties"] is False
    for name, value in tomllib.loads(example_ceiling()).items():
        entry = schema["properties"][name]
        if isinstance(value, dict):
            section = schema["$defs"][entry["$ref"].rpartition("/")[2]]
            assert section["additionalProperties"] is False
            assert section["description"]
            for key in value:
                assert section["properties"][key]["description"]
                if pattern := section["properties"][key].get("pattern"):
                    assert re.search(pattern, value[key])
