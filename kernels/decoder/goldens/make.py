"""Makes tokenizer.json and decisions.json, the reference answers of the decoder's tests.

    pip install torch==2.15.0 transformers==5.24.0
    python make.py

Each case is a small model of one architecture whose weights are made by the formula `weight`, which the tests repeat.
transformers renders the conversations, and computes each question in a pass of its own, without a cache, in f64 (its
norms and rotations are f32 all the same). The tokenizer knows every byte and a few longer tokens.
"""

import copy
import json
import pathlib

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = pathlib.Path(__file__).parent


def uniform(name, count):
    """count numbers of 24 bits in [-1, 1), different for each name."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    x = np.uint64(seed) + np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def weight(name, shape):
    """Around 1 for norms; for matrices such that their products keep the size of their inputs. In f32."""
    values = uniform(name, int(np.prod(shape))).reshape(shape)
    if "norm" in name:
        values = 1 + values / 4
    elif name.endswith("bias"):
        values = values / 2
    elif "embed" not in name:
        values = values * 2 / np.sqrt(shape[1])
    return torch.tensor(values.astype(np.float32).astype(np.float64))


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", letter) for letter in "ABCD"] + [("n", "o"), ("no", "d"), ("l", "e")]
    vocabulary = {token: index for index, token in enumerate(alphabet + ["".join(pair) for pair in merges])}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    names = ["<|begin|>", "<|end|>", "<|turn|>"]
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    made.save(str(HERE / "tokenizer.json"))
    return made


# What the templates of instruction-tuned models do, in small: loops from the back, names that outlive a loop,
# methods of Python's strings, an empty thought.
TEMPLATE = """\
{%- set users = messages | selectattr('role', 'equalto', 'user') | list %}
{%- if users|length == 0 %}
    {{- raise_exception('nobody asks') }}
{%- endif %}
{{- bos_token }}
{%- if tools is not none %}{{ raise_exception('no tools here') }}{% endif %}
{%- set last = namespace(index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' and not message.content.startswith('again:') and last.index > 0 %}
        {%- set last.index = messages|length - 1 - loop.index0 %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- if messages[0].role == 'system' %}
    {{- '<|turn|>system\\nToday is ' + '2024' + '\\n' + messages[0].content.strip() + '<|end|>\\n' }}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{% for message in rest %}
    {%- if message.role == 'system' %}
        {{- raise_exception('a system message comes first') }}
    {%- endif %}
    {%- if message['content'] is string and '</think>' in message.content %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
    {%- elif message.get('tool_calls') %}
        {{- raise_exception('no tools here') }}
    {%- else %}
        {%- set content = message['content'] | trim %}
    {%- endif %}
<|turn|>{{ message.role }}
{{ content.rstrip('\\n') }}<|end|>
{% endfor %}
{%- if add_generation_prompt %}
<|turn|>assistant
    {%- if enable_thinking is defined and not enable_thinking %}

<think>

</think>

    {%- endif %}
{%- endif %}
"""

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "vocab_size": 272}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
# The keys of transformers 4, in which most models are stored; `mistral` has those of transformers 5.
CASES = {
    "llama": ("Llama", {"rope_theta": 10000.0, "tie_word_embeddings": False}),
    "llama_3": ("Llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA3, "tie_word_embeddings": True}),
    "llama_biased": ("Llama", {"rope_theta": 10000.0, "attention_bias": True, "mlp_bias": True,
                               "rope_scaling": {"type": "linear", "factor": 4.0}}),
    "mistral": ("Mistral", {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
                            "sliding_window": 24}),
    "qwen2": ("Qwen2", {"rope_theta": 1000000.0, "use_sliding_window": True, "sliding_window": 16,
                        "max_window_layers": 2}),
    "qwen3": ("Qwen3", {"rope_theta": 1000000.0, "head_dim": 16, "tie_word_embeddings": True,
                        "use_sliding_window": False, "sliding_window": None, "max_window_layers": 3}),
}

INTRODUCTION = "You read reports. A: present, B: absent, C: uncertain, D: not mentioned."
REPORTS = ["A nodule of 4 mm in the left upper lobe.", "No effusion.",
           "No effusion. The nodule of 4 mm is as it was; the heart may be enlarged. " * 3]
QUESTIONS = ["lung nodule:", "pleural effusion:", "heart:"]
OPTIONS = [" A", " B", " C", " D"]


def conversations(system):
    for report in REPORTS:
        if system:
            yield [{"role": "system", "content": INTRODUCTION}, {"role": "user", "content": report}]
        else:
            yield [{"role": "user", "content": f"{INTRODUCTION}\n\n{report}"}]


def case(kind, settings, tokens):
    settings = SIZES | {"hidden_act": "silu", "tie_word_embeddings": False} | settings
    config = getattr(transformers, f"{kind}Config")(**copy.deepcopy(settings), attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().double()
    state = {name: weight(name, tuple(value.shape)) for name, value in model.state_dict().items()
             if not (name == "lm_head.weight" and settings["tie_word_embeddings"])}
    model.load_state_dict(state, strict=not settings["tie_word_embeddings"])
    model.tie_weights()
    answers = []
    for conversation in conversations(kind != "Mistral"):
        prompt = tokens.apply_chat_template(conversation, add_generation_prompt=True, enable_thinking=False,
                                            tokenize=False)
        answers.append([decision(model, tokens, prompt, question) for question in QUESTIONS])
    return {"config": {"architectures": [f"{kind}ForCausalLM"]} | settings, "answers": answers}


def decision(model, tokens, prompt, question):
    encode = lambda text: tokens.encode(text, add_special_tokens=False)
    asked = encode(prompt) + encode(question)
    with torch.no_grad():
        logits = model(torch.tensor([asked]), use_cache=False).logits[0, -1]
    options = [encode(question + option)[len(encode(question)):] for option in OPTIONS]
    assert all(len(option) == 1 for option in options)
    logits = logits - logits.logsumexp(0)
    chosen = logits[torch.tensor(options).flatten()]
    return {"probabilities": [round(p, 9) for p in chosen.softmax(0).tolist()],
            "label_mass": round(chosen.exp().sum().item(), 9)}


def main():
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer(), bos_token="<|begin|>",
                                                  eos_token="<|end|>", chat_template=TEMPLATE)
    render = lambda conversation: tokens.apply_chat_template(conversation, add_generation_prompt=True,
                                                             enable_thinking=False, tokenize=False)
    talk = [{"role": "system", "content": " Short. "}, {"role": "user", "content": "One?\n"},
            {"role": "assistant", "content": "<think>is it\n</think>\n\nA"}, {"role": "user", "content": "again: two?"}]
    golden = {
        "template": TEMPLATE,
        "rendered": [{"messages": messages, "text": render(messages)} for messages in (talk, talk[1:2])],
        "introduction": INTRODUCTION, "reports": REPORTS, "questions": QUESTIONS, "options": OPTIONS,
        "cases": {name: case(kind, settings, tokens) for name, (kind, settings) in CASES.items()},
    }
    (HERE / "decisions.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")


main()
