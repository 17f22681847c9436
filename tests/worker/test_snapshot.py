"""The session's state, carried from one child to another."""
# ruff: noqa: E501 - a table of small programs reads better with one line each

from __future__ import annotations

import pytest

from mxc_kernel.wire import Channel
from tests.worker.conftest import Child

# name of the case: what the first child runs, what must be true in the second
CASES = {
    "plain values": ("a = 1; b = 'x'; c = [1, {2: 3}]", "(a, b, c) == (1, 'x', [1, {2: 3}])"),
    "private names": ("_mine = 5", "_mine == 5"),
    "shared reference": ("a = []; b = [a]", "b[0] is a"),
    "cycle": ("a = []; a.append(a)", "a[0] is a"),
    "function": ("def f(y): return y + 1", "f(1) == 2"),
    "function sees later globals": ("x = 1\ndef f(): return x", "(globals().update(x=77), f())[1] == 77"),
    "function's globals are the notebook's": ("def f(): pass", "f.__globals__ is globals()"),
    "defaults and annotations": ("def f(a: int = 3, *, k=4): 'doc'; return a, k", "(f(), f.__annotations__, f.__doc__) == ((3, 4), {'a': int}, 'doc')"),
    "function attributes": ("def f(): pass\nf.tag = 3", "f.tag == 3"),
    "lambda": ("g = lambda v: v * 2", "g(4) == 8"),
    "closure": ("def make(n):\n    def inner(): return n\n    return inner\nh = make(3)", "h() == 3"),
    "closures share a cell": (
        "def make():\n    n = 0\n    def up():\n        nonlocal n; n += 1\n    def get(): return n\n    return up, get\nup, get = make()",
        "(up(), get())[1] == 1",
    ),
    "recursive closure": (
        "def make():\n    def fact(n): return 1 if n < 2 else n * fact(n - 1)\n    return fact\nfact = make()",
        "fact(5) == 120 and fact.__closure__[0].cell_contents is fact",
    ),
    "recursive function": ("def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)", "fib(10) == 55"),
    "class and instance": ("class A:\n    def __init__(self): self.v = 3\n    def get(self): return self.v\na = A()", "isinstance(a, A) and type(a) is A and a.get() == 3"),
    "class uses later globals": ("y = 1\nclass A:\n    def get(self): return y\na = A()", "(globals().update(y=9), a.get())[1] == 9"),
    "inheritance and super": ("class A:\n    def f(self): return 1\nclass B(A):\n    def f(self): return super().f() + 1\nb = B()", "b.f() == 2 and isinstance(b, A)"),
    "dataclass": ("import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int = 1\np = P(4)", "p == P(4) and repr(p).endswith('P(x=4)')"),
    "enum": ("import enum\nclass Color(enum.Enum):\n    RED = 1\nc = Color.RED", "c is Color.RED"),
    "namedtuple": ("import collections\nPoint = collections.namedtuple('Point', 'x y')\np = Point(1, 2)", "isinstance(p, Point) and p.y == 2"),
    "slots": ("class S:\n    __slots__ = ('q',)\ns = S(); s.q = 5", "s.q == 5"),
    "property, static and class methods": ("class A:\n    @property\n    def p(self): return 1\n    @staticmethod\n    def s(): return 2\n    @classmethod\n    def c(cls): return cls\na = A()", "(a.p, A.s(), A.c()) == (1, 2, A)"),
    "abstract base": ("import abc\nclass Base(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\nclass D(Base):\n    def f(self): return 1\nd = D()", "isinstance(d, Base)"),
    "module": ("import json as j, os.path", "j.dumps(1) == '1' and os.path.sep == '/'"),
    "lru_cache": ("import functools\n@functools.lru_cache(maxsize=7)\ndef cached(n): return n * 2\ncached(1)", "cached(2) == 4 and cached.cache_parameters()['maxsize'] == 7"),
    "partial": ("import functools\ndef add(a, b): return a + b\nadd3 = functools.partial(add, 3)", "add3(4) == 7 and add3.func is add"),
    "bound method": ("class A:\n    def f(self): return self\na = A(); m = a.f", "m() is a"),
    "the namespace itself": ("g = globals()", "g is globals()"),
    "decorated function": ("import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a) + 1\n    return w\n@deco\ndef one(): return 1", "one() == 2 and one.__wrapped__() == 1"),
    "coroutine function": ("async def co(): return 6", "await co() == 6"),
    "generator function": ("def gen():\n    yield 1", "list(gen()) == [1]"),
    "string and bytes buffers": ("import io\ns = io.StringIO(); s.write('abc')\nb = io.BytesIO(b'xyz')", "s.getvalue() == 'abc' and b.read() == b'xyz'"),
    "large string and bytes": ("s = 'ab' * 3_000_000; b = b'cd' * 3_000_000; ba = bytearray(b'e' * 100_000)", "s == 'ab' * 3_000_000 and b == b'cd' * 3_000_000 and ba == b'e' * 100_000"),
    "deep nesting": ("d = []\nfor _ in range(300): d = [d]", "str(d).count('[') == 301"),
    "exception": ("try: 1/0\nexcept ZeroDivisionError as e: err = e", "isinstance(err, ZeroDivisionError)"),
    "datetime and decimal": ("import datetime, decimal\nd = datetime.datetime(2020, 1, 2); q = decimal.Decimal('1.10')", "d.year == 2020 and str(q) == '1.10'"),
    "standard streams": ("import sys\nout = [sys.stdout]", "out[0] is sys.stdout"),
    "array": ("import numpy as np\na = np.arange(100_000.0)", "float(a.sum()) == 4999950000.0 and a.flags.writeable and (a.__setitem__(0, 5), float(a[0]))[1] == 5.0"),
    "read-only array": ("import numpy as np\na = np.arange(10_000); a.flags.writeable = False", "not a.flags.writeable and int(a[9]) == 9"),
    "the same array twice": ("import numpy as np\na = np.zeros(10_000); b = [a]", "b[0] is a"),
    "strided and Fortran arrays": ("import numpy as np\na = np.arange(20_000).reshape(100, 200)[:, ::2]; f = np.asfortranarray(np.eye(100))", "a.shape == (100, 100) and int(a[1, 1]) == 202 and f.flags.f_contiguous"),
    "object array": ("import numpy as np\na = np.array([{}, [1]], dtype=object)", "a[1] == [1]"),
    "DataFrame": ("import pandas as pd\ndf = pd.DataFrame({'a': range(5000), 'b': ['x'] * 5000})", "int(df.a.sum()) == 12497500 and df.b[4999] == 'x' and (df.__setitem__('a', 1), int(df.a.sum()))[1] == 5000"),
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two children for all cases; %reset in between leaves them without names."""
    folder = tmp_path_factory.mktemp("pair")
    two = Child(str(folder / "first")), Child(str(folder / "second"))
    yield two
    for one in two:
        one.close()


@pytest.mark.parametrize("case", CASES)
def test_is_carried(case, pair):
    first, second = pair
    setup, check = CASES[case]
    for child in pair:
        child.ok("%reset -f\n%reset -f out")
    first.ok(setup)
    chunks, report = first.dump()
    assert report["lost"] == []
    assert sum(map(len, chunks)) == report["bytes"]
    loaded = second.load(chunks)
    assert (loaded["names"], loaded["lost"]) == (report["names"], [])
    assert second.ok(check) == "True"


# What the first child runs, what must be true in the second, what is reported as lost.
PROCESS_CASES = {
    "In and Out": ("41 + 1", "Out[1] == 42 and _1 == 42 and In[1] == '41 + 1'"),
    "the last result": ("class O: pass\no = O()\no", "Out[2] is o"),
    "source of functions": (
        "def shown():\n    return 'the source'",
        "'the source' in __import__('inspect').getsource(shown)",
    ),
    "working folder": ("import os; os.makedirs('sub'); os.chdir('sub')", "FOLDER"),
    "import path": ("import sys; sys.path.append('/else')", "'/else' in __import__('sys').path"),
    "environment": (
        "import os; os.environ['MINE'] = 'yes'; del os.environ['LANG']",
        "os.environ['MINE'] == 'yes' and 'LANG' not in os.environ",
    ),
}
PROCESS_CASES |= {
    "random": (
        "import random; random.seed(1); random.random(); state = random.getstate()",
        "random.getstate() == state",
    ),
    "numpy.random": (
        "import numpy as np; np.random.seed(3); copy = np.random.get_state()[1].copy()",
        "bool((np.random.get_state()[1] == copy).all())",
    ),
    "warnings filters": (
        "import warnings; warnings.filterwarnings('error', message='strange')",
        "any(f[0] == 'error' and f[1] and f[1].pattern == 'strange' for f in warnings.filters)",
    ),
    "numpy print options": (
        "import numpy as np; np.set_printoptions(precision=3)",
        "np.get_printoptions()['precision'] == 3",
    ),
    "pandas options": (
        "import pandas as pd; pd.set_option('display.max_rows', 7)",
        "pd.get_option('display.max_rows') == 7",
    ),
    "matplotlib rc": (
        "import matplotlib as mpl; mpl.rcParams['lines.linewidth'] = 9.5",
        "mpl.rcParams['lines.linewidth'] == 9.5",
    ),
    "private files": (
        "import os; os.mkdir('d'); os.symlink('d', 'link'); os.mknod('d/e'); os.truncate('d/e', 3_000_000)",
        "os.path.getsize('link/e') == 3_000_000 and os.readlink('link') == 'd'",
    ),
}


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A second child that got everything that the first one's process held."""
    folder = tmp_path_factory.mktemp("process")
    first = Child(str(folder / "first"))
    for setup, _ in PROCESS_CASES.values():
        first.ok(setup)
    chunks, report = first.dump()
    first.close()
    second = Child(str(folder / "second"))
    loaded = second.load(chunks)
    yield first, second, report, loaded
    second.close()


@pytest.mark.parametrize("case", [case for case in PROCESS_CASES if case != "working folder"])
def test_process_state_is_carried(case, process):
    _, second, report, loaded = process
    assert report["lost"] == []
    # the first child's working folder lies in its own scratch, which the second one cannot know
    assert [entry["name"] for entry in loaded["lost"]] in ([], ["working folder"])
    assert second.ok(PROCESS_CASES[case][1]) == "True"


LOST = {
    "a generator": "v = (i for i in [1])",
    "an open file": "import os; v = open(os.devnull)",
    "a socket": "import socket; v = socket.socket()",
    "a lock": "import threading; v = threading.Lock()",
    "a thread": "import threading; v = threading.Thread()",
    "a database connection": "import sqlite3; v = sqlite3.connect(':memory:')",
    "a weak reference": "import weakref\nclass C: pass\nkeep = C()\nv = weakref.ref(keep)",
    "a running process": "import subprocess; v = subprocess.Popen(['true']); _ = v.wait()",
    "holds a generator": "v = [(i for i in [1])]",
    "holds a lock": "import threading; v = {'key': [threading.RLock()]}",
    "holds an open file": "import os; v = [open(os.devnull, 'rb')]",
    "ValueError: no": "class V:\n    def __reduce__(self): raise ValueError('no')\nv = V()",
    "RuntimeError: not here": (
        "def refuse(): raise RuntimeError('not here')\n"
        "class V:\n    def __reduce__(self): return refuse, ()\nv = V()"
    ),
    "ended the process that tried to restore it": (
        "def die():\n    import os; os._exit(3)\n"
        "class V:\n    def __reduce__(self): return die, ()\nv = V()"
    ),
}


@pytest.mark.parametrize("reason", LOST)
def test_what_cannot_be_carried_is_named_and_costs_nothing_else(reason, pair):
    first, second = pair
    for child in pair:
        child.ok("%reset -f\n%reset -f out")
    first.ok(f"before = [1]\n{LOST[reason]}\nafter = before")
    chunks, report = first.dump()
    assert report["lost"] == [{"name": "v", "reason": reason}]
    assert second.load(chunks)["lost"] == []
    assert second.ok("before == [1] and after is before and 'v' not in globals()") == "True"
    assert first.ok("'v' in globals()") == "True"


def test_a_value_that_only_fails_over_there_costs_itself_and_what_refers_into_it(start, tmp_path):
    """A module that one child can import and the other cannot, as when a policy was narrowed."""
    module = tmp_path / "granted" / "only_here.py"
    module.parent.mkdir()
    module.write_text("class Thing:\n    pass\n")
    first, second = start(), start()
    first.ok(
        f"import sys; sys.path.append({str(module.parent)!r})\nimport only_here\n"
        "class Mine: pass\n"
        "inner = [1]\nclass Also: pass\n"
        "bad = {'name': inner, 'thing': only_here.Thing(), 'also': Also()}\nhalf = [bad]\n"
        "mine = Mine(); mine.name = 1\nalso = Also(); also.thing = mine\nfine = [mine, inner]"
    )
    chunks, report = first.dump()
    assert report["lost"] == []
    module.unlink()
    lost = {entry["name"]: entry["reason"] for entry in second.load(chunks)["lost"]}
    assert set(lost) == {"only_here", "bad", "half"}
    assert lost["bad"].startswith("ModuleNotFoundError")
    assert "shares an object" in lost["half"]
    check = "isinstance(also, Also) and also.thing is mine and fine[0] is mine and fine[1] is inner"
    assert second.ok(check) == "True"


def test_a_load_of_garbage_or_of_half_a_state_restores_nothing_and_says_so(start):
    first, second = start(), start()
    first.ok("kept = 'x' * 5_000_000")
    chunks, _ = first.dump()
    second.ok("own = 1")
    for damaged in (chunks[:-1], [], [b"\0" * 100]):
        for chunk in damaged:
            second.send(Channel.STATE, b"chunk", chunk)
        second.send(Channel.STATE, b"load")
        while (frame := second.frame())[0] is not Channel.STATE:
            pass
        assert b"error" in frame[1][1]
        assert second.ok("own == 1 and 'kept' not in globals()") == "True"
    assert second.load(chunks)["names"] == 1  # the same child still takes a whole one


def test_arrays_that_shared_memory_are_noted(start):
    child = start()
    child.ok("import numpy as np\na = np.zeros(10)\nb = a[2:]\nc = np.zeros(3)\nd = a")
    _, report = child.dump()
    assert report["notes"] == [{"name": "b", "note": "no longer shares its memory with a"}]


def test_the_last_result_is_carried(start):
    first, second = start(), start()
    first.ok("class O: pass\no = O()\no")
    second.load(first.dump()[0])
    assert second.ok("_ is o") == "True"


def test_the_names_stay_usable_after_a_dump(start):
    child = start()
    child.ok("import numpy as np\na = np.arange(100_000)\ndef f(): return a.sum()")
    child.dump()
    assert child.ok("int(f())") == "4999950000"


def test_a_dump_can_be_interrupted(start):
    child = start()
    child.ok(
        "class Slow:\n    def __reduce__(self):\n        import time\n"
        "        print('reducing', flush=True)\n        time.sleep(600)\nslow = Slow()"
    )
    child.send(Channel.STATE, b"dump")
    while b"reducing" not in child.frame()[1][-1]:
        pass
    child.send(Channel.SIGNAL, b"interrupt")
    while (frame := child.frame())[0] is not Channel.STATE:
        pass
    assert b"KeyboardInterrupt" in frame[1][1]
    assert child.ok("1 + 1") == "2"


def peak_megabytes(child):
    with open(f"/proc/{child.process.pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmHWM"].split()[0]) / 1024


def test_a_large_array_is_carried_without_a_second_copy_in_either_child(start):
    size = 200  # MB
    first, second = start(), start()
    for child in (first, second):
        child.ok("import numpy as np")
    base = peak_megabytes(second)
    first.ok(f"a = np.ones({size} << 17)")
    chunks, report = first.dump()
    assert report["bytes"] >= size << 20
    assert peak_megabytes(first) < base + 1.2 * size + 40
    assert second.load(chunks)["lost"] == []
    assert peak_megabytes(second) < base + 1.2 * size + 40
    assert second.ok("float(a.sum())") == str(float(size << 17))
