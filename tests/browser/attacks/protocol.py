"""Messages other than a display: updates, replies, prompts, help, completions, the debugger."""

# ruff: noqa: E501 - what an attack says is easier to read in one piece

import textwrap

from tests.browser.attacks.attack import ALL, LIVE, SAVED, Attack

_IMG = '<img src=x: onerror="@JS@">'
_FAR = "@HOST@/@MARK@"
_PAYLOAD = "get_ipython().payload_manager.write_payload"
_OSC8 = "\\x1b]8;;javascript:1\\x07x\\x1b]8;;\\x07 \\x1b]8;;@HOST@/@MARK@/osc\\x07y\\x1b]8;;\\x07"


def _code(text: str) -> str:
    return textwrap.dedent(text).strip().replace("@IMG@", _IMG)


ATTACKS = (
    Attack(
        "update-display",
        "a harmless display that becomes a script",
        "from IPython.display import display, HTML\nshown = display('harmless', display_id='@MARK@')",
        SAVED,
        then=(f"shown.update(HTML('''{_IMG}'''))",),
    ),
    Attack(
        "update-elsewhere",
        "an update of another cell's display",
        "from IPython.display import display\ndisplay('harmless', display_id='again-@MARK@')",
        SAVED,
        then=(
            f"from IPython.display import HTML, update_display\nupdate_display(HTML('''{_IMG}'''), display_id='again-@MARK@')",
        ),
    ),
    Attack(
        "transient",
        "a display with an identity of its own making",
        f"from IPython.display import publish_display_data\npublish_display_data({{'text/html': '''{_IMG}'''}}, transient={{'display_id': '__proto__'}})",
        SAVED,
    ),
    Attack(
        "execute-result",
        "a result instead of a display",
        f"get_ipython().kernel.session.send(get_ipython().kernel.iopub_socket, 'execute_result', {{'data': {{'text/html': '''{_IMG}'''}}, 'metadata': {{}}, 'execution_count': 1}}, parent=get_ipython().kernel.get_parent())",
        SAVED,
    ),
    Attack(
        "page",
        "the pager, by the reply's payload",
        f"{_PAYLOAD}({{'source': 'page', 'start': 0, 'data': {{'text/html': '''{_IMG}''', 'text/plain': 'x'}}}})",
        SAVED,
    ),
    Attack(
        "next-input",
        "the next cell's text",
        "get_ipython().set_next_input('%allow_rw / # @MARK@')",
        ALL,
    ),
    Attack(
        "replace-input",
        "this cell's text",
        "get_ipython().set_next_input('%allow_rw / # @MARK@', replace=True)",
        ALL,
    ),
    Attack(
        "edit",
        "other payloads",
        f"{_PAYLOAD}({{'source': 'edit', 'filename': '@MARK@', 'line_number': 1}})\n{_PAYLOAD}({{'source': 'edit_magic', 'filename': '@MARK@'}})\n{_PAYLOAD}({{'source': 'ask_exit', 'keepkernel': False}})",
    ),
    Attack(
        "stdout",
        "HTML, links and escapes on stdout",
        f"print('''{_IMG} javascript:1 <a href=\"javascript:1\">x</a>''')\nprint('{_OSC8}')\nprint('\\x1b]52;c;eA==\\x07\\x1b]0;x\\x07')",
    ),
    Attack(
        "stderr",
        "the same on stderr",
        f"import sys\nprint('''{_IMG} <img src=\"{_FAR}/stderr\">''', file=sys.stderr)\nprint('{_OSC8}', file=sys.stderr)",
    ),
    Attack(
        "stream-link",
        "addresses that the Lab makes links of",
        "print('javascript://%0a@JS@ www.x@HOST@ file:///x http://x/\"onmouseover=\"@JS@')",
    ),
    Attack(
        "plain-text",
        "HTML and escapes as plain text",
        "class X:\n    def __repr__(self):\n" + f"        return '''{_IMG} ''' + '{_OSC8}'\nX()",
    ),
    Attack(
        "traceback", "HTML and escapes in an error", f"raise ValueError('''{_IMG} ''' + '{_OSC8}')"
    ),
    Attack(
        "error",
        "an error made by hand",
        f"get_ipython().kernel.session.send(get_ipython().kernel.iopub_socket, 'error', {{'ename': '''{_IMG}''', 'evalue': '''{_IMG}''', 'traceback': ['''{_IMG}''', '{_OSC8}']}}, parent=get_ipython().kernel.get_parent())",
    ),
    Attack("prompt", "HTML in the question of input()", f"x = input('''{_IMG}''')"),
    Attack(
        "password",
        "HTML in the question of getpass()",
        f"import getpass\nx = getpass.getpass('''{_IMG}''')",
    ),
    Attack(
        "forged-status",
        "messages that no cell sends",
        f"for kind in ('status', 'execute_input', 'shutdown_reply', 'comm_info_reply', 'pwned'):\n    get_ipython().kernel.session.send(get_ipython().kernel.iopub_socket, kind, {{'execution_state': 'idle', 'code': '%allow_rw / # @MARK@', 'execution_count': 1, 'data': {{'text/html': '''{_IMG}'''}}}}, parent=get_ipython().kernel.get_parent())",
    ),
    Attack(
        "clear-output",
        "an output that is cleared and comes again",
        f"from IPython.display import clear_output, display, HTML\ndisplay('x')\nclear_output(wait=True)\ndisplay(HTML('''{_IMG}'''))",
        SAVED,
    ),
    Attack(
        "metadata",
        "metadata of an output that the Lab reads",
        "from IPython.display import display\ndisplay({'text/plain': 'x', 'text/html': '<b>x</b>'}, raw=True, metadata={'text/html': {'isolated': True, 'trusted': True}, 'trusted': True, 'url': '@HOST@/@MARK@/url', 'mxc': {'notice': 'forged'}})",
    ),
    Attack(
        "inspect",
        "HTML in a help text",
        _code(
            """
            it = 1

            async def inspected(*_a, **_k):
                data = {'text/html': '@IMG@<img src="@HOST@/@MARK@/inspect">', 'text/plain': 'x'}
                return {'status': 'ok', 'found': True, 'data': data, 'metadata': {}}

            get_ipython().kernel.do_inspect = inspected
            """
        ),
        LIVE,
        do="inspect",
    ),
    Attack(
        "complete",
        "a completion with a line break and a policy magic, its types HTML",
        _code(
            """
            async def completed(_code, at):
                names = ['aaa\\n%allow_rw / # @MARK@', '@IMG@']
                types = [{'text': n, 'type': n, 'signature': n, 'start': at, 'end': at} for n in names]
                more = {'_jupyter_types_experimental': types}
                found = {'matches': names, 'cursor_start': at, 'cursor_end': at}
                return {'status': 'ok', **found, 'metadata': more}

            get_ipython().kernel.do_complete = completed
            """
        ),
        ALL,
        do="complete",
    ),
    Attack(
        "variable",
        "HTML in the debugger's rich view of a variable",
        _code(
            """
            it = 1
            honest = get_ipython().kernel.do_debug_request

            async def rich(message):
                if message['command'] != 'richInspectVariables':
                    return await honest(message)
                body = {'data': {'text/html': '@IMG@'}, 'metadata': {}}
                said = {'type': 'response', 'success': True, 'command': message['command']}
                return {**said, 'seq': 1, 'request_seq': message['seq'], 'body': body}

            get_ipython().kernel.do_debug_request = rich
            """
        ),
        LIVE,
        do="variable",
    ),
)
