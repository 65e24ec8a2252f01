"""Chat templates: rendered as transformers does, and harmless whoever wrote them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edgepack_runtime import InputError, TrustError
from edgepack_runtime.inputs.chat import render

MESSAGES = [
    {"role": "system", "content": "You are <short>."},
    {"role": "user", "content": "Turn on the lights & say 'ok'"},
    {"role": "assistant", "content": "ok"},
    {"role": "user", "content": "naïve — 日本"},
]
TOOLS = [{"type": "function", "function": {"name": "switch", "parameters": {"on": "boolean"}}}]
TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}",
    "whitespace": "{%- for m in messages -%}\n    {% if loop.first %}[{% endif %}\n"
    "    {{ m.content | trim }}\n    {% if not loop.last %}|{% endif %}\n{%- endfor %}]",
    "tools": "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{{ m | tojson }}{% endfor %}",
    "namespace": "{% set ns = namespace(last='') %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{% continue %}{% endif %}{% set ns.last = m.content %}"
    "{% endfor %}{{ ns.last ~ '!' ~ eos_token }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "options": "{% if enable_thinking is defined and enable_thinking is false %}no{% endif %}"
    "{{ messages[1:] | length }}{{ messages | map(attribute='role') | join(',') }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_rendered_as_in_transformers(name: str) -> None:
    """Loops, white space, JSON, name spaces and blocks of training give the same text."""
    from transformers.utils.chat_template_utils import render_jinja_template

    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    more = {"enable_thinking": False}
    (wanted,), _ = render_jinja_template(
        [MESSAGES],
        tools=TOOLS,
        chat_template=TEMPLATES[name],
        add_generation_prompt=True,
        **tokens,
        **more,
    )
    assert render(TEMPLATES[name], MESSAGES, tokens, tools=TOOLS, options=more) == wanted


@pytest.mark.parametrize(
    "template",
    [
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}"
            "{% endfor %}{% endfor %}{% endfor %}"
        ),
        "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
            "{% endfor %}"
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
            "{% endfor %}"
        ),
        "{{ 'a' * 999999999999 }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ 'a'.ljust(99999999999) }}",
        "{{ '%099999999999d' % 1 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ lipsum(n=99999) }}",
        "{% include 'x' %}",
        "{{ range(99999999) | list }}",
        "{{ messages | tojson(indent=99999999) }}",
    ],
)
def test_a_hostile_template_is_refused_in_time(template: str) -> None:
    """No loop without an end, no text without a bound, nothing of Python: an error within 2 s."""
    start = time.monotonic()
    with pytest.raises((TrustError, InputError)):
        render(template, MESSAGES, {})
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("template", ["{% if %}", "{{ x", "{% endfor %}", "x" * 300_000])
def test_a_template_that_cannot_be_read_is_not_trusted(template: str) -> None:
    """It came with the bundle, so the bundle is at fault."""
    with pytest.raises(TrustError, match="the chat template"):
        render(template, MESSAGES, {})


@pytest.mark.parametrize("messages", [[], [{}], ["hello"], [{"content": "no role"}]])
def test_what_are_no_messages_is_one_clear_error(messages: Any) -> None:
    """The message says which one, and what one looks like."""
    with pytest.raises(InputError, match="message"):
        render(TEMPLATES["chatml"], messages, {})


def test_a_template_may_refuse_a_dialogue() -> None:
    """What it says of it reaches the caller."""
    with pytest.raises(InputError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", MESSAGES, {})
