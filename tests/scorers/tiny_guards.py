"""Tiny guards of each family: random weights, and chat templates of our own that take what the family's takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
)
from transformers.models.gemma2 import Gemma2ForCausalLM
from transformers.models.granite import GraniteForCausalLM
from transformers.models.qwen3 import Qwen3ForCausalLM

_SIZES: Final = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}
_CONSTANT: Final = 0
"""The channel of the residual stream that `say` makes alike for every token."""

_CORPUS: Final = (
    "please tell me how the grey spice called vorn powder is kept dry in a small kitchen",
    "Safety: Safe Safety: Unsafe Safety: Controversial Categories: None Refusal: No",
    "safe unsafe safe unsafe Yes No Yes No <score> yes </score> <score> no </score>",
    "the conversation between a person and a chatbot is judged by the guideline below",
)

_CONVERSATION: Final = (
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('by turns, please') }}{% endif %}"
    "{{ {'user': 'User', 'assistant': 'Agent'}[message['role']] }}: CONTENT{{ '\n' }}{% endfor %}"
)
LLAMA_GUARD: Final = (
    "<start>Judge the last {{ {'user': 'User', 'assistant': 'Agent'}[messages[-1]['role']] }}.\n"
    + _CONVERSATION.replace("CONTENT", "{{ message['content'] | trim }}")
    + "<turn>guard"
)
LLAMA_GUARD_PARTS: Final = (
    "<start>Judge the last {{ {'user': 'User', 'assistant': 'Agent'}[messages[-1]['role']] }}.\n"
    + _CONVERSATION.replace(
        "CONTENT",
        "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}",
    )
    + "<turn>guard{{ '\n' }}"
)
QWEN3GUARD: Final = (
    "<turn>user\n{% for message in messages %}{{ message['role'] | upper }}: {{ message['content'] }}\n{% endfor %}"
    "<end>\n<turn>assistant\n<think>\n\n</think>{{ '\n\n' }}"
)
GRANITE: Final = (
    "<turn>user\n{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if think %}Think.{% endif %}Criteria: {{ guardian_config['criteria_id'] }}<end>\n"
    "{% if add_generation_prompt %}<turn>assistant{% endif %}"
)
GRANITE_3_2: Final = (
    "<turn>user\nUser Message: {{ messages[-2]['content'] }}\nAssistant Message: {{ messages[-1]['content'] }}\n"
    "Risk: {{ guardian_config['risk_name'] }}<end>\n{% if add_generation_prompt %}<turn>assistant{% endif %}"
)
SHIELDGEMMA: Final = (
    "<start>{% if messages | length > 2 %}{{ raise_exception('one question, one answer') }}{% endif %}"
    "Human Question: {{ messages[0]['content'] }}\nChatbot Response: {{ messages[1]['content'] }}\n"
    "Principle: {{ guideline }}\nYes or No?\n\n{% if add_generation_prompt %}<turn>model\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Family:
    """A template, the kind of model that reads it, and the prompt that one question and one answer should make."""

    template: str
    network: Any
    prompt: str


def _llama(vocabulary: int) -> Any:
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=False, **_SIZES))


def _qwen3(vocabulary: int) -> Any:
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocabulary, tie_word_embeddings=False, **_SIZES))


def _granite(vocabulary: int) -> Any:
    sizes = {name: size for name, size in _SIZES.items() if name != "head_dim"}
    return GraniteForCausalLM(GraniteConfig(vocab_size=vocabulary, tie_word_embeddings=False, **sizes))


def _gemma2(vocabulary: int) -> Any:
    """Its sliding window is shorter than any prompt, so that padding in it would show."""
    config = Gemma2Config(
        vocab_size=vocabulary, tie_word_embeddings=False, sliding_window=12, query_pre_attn_scalar=16, **_SIZES
    )
    return Gemma2ForCausalLM(config)


def gpt2(vocabulary: int) -> Any:
    """No guard is one; its positions are learnt, so that it shows where they are wrong."""
    config = GPT2Config(
        vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=2, n_positions=512, initializer_range=0.3, bos_token_id=1
    )
    return GPT2LMHeadModel(config)


def llama4(vocabulary: int) -> Any:
    """With eyes, as Llama Guard 4 has them."""
    text = {**_SIZES, "vocab_size": vocabulary, "intermediate_size_mlp": 64, "num_local_experts": 1, "pad_token_id": 0}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    more = {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32, "image_size": 28}
    config = Llama4Config(text_config={**text, "moe_layers": []}, vision_config={**vision, **more, "patch_size": 14})
    return Llama4ForConditionalGeneration(config)


FAMILIES: Final = {
    "llama-guard": Family(
        LLAMA_GUARD,
        _llama,
        "<start>Judge the last Agent.\nUser: Is vorn powder hot?\nAgent: It is mild.\n<turn>guard\n\n",
    ),
    "qwen3guard": Family(
        QWEN3GUARD,
        _qwen3,
        "<turn>user\nUSER: Is vorn powder hot?\nASSISTANT: It is mild.\n<end>\n<turn>assistant\n"
        "<think>\n\n</think>\n\nSafety: ",
    ),
    "granite-guardian": Family(
        GRANITE,
        _granite,
        "<turn>user\nuser: Is vorn powder hot?\nassistant: It is mild.\nCriteria: harm<end>\n<turn>assistant<score> ",
    ),
    "granite-guardian-3.2": Family(
        GRANITE_3_2,
        _granite,
        "<turn>user\nUser Message: Is vorn powder hot?\nAssistant Message: It is mild.\n"
        "Risk: harm<end>\n<turn>assistant",
    ),
    "shieldgemma": Family(
        SHIELDGEMMA,
        _gemma2,
        "<start>Human Question: Is vorn powder hot?\nChatbot Response: It is mild.\n"
        "Principle: No powder.\nYes or No?\n\n",
    ),
}


def tokenizer_of(template: str | None, *, words: tuple[str, ...] = _CORPUS) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<start>", "<turn>", "<end>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=["<start>", "<turn>"],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def build(folder: Path, template: str | None, network: Any = _llama, *, says: int | None = None) -> Path:
    """Writes a guard; with `says`, one that says that token whatever it reads."""
    torch.manual_seed(3)
    tokenizer = tokenizer_of(template)
    model = network(len(tokenizer))
    if says is not None:
        _say(model, says)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _say(model: Any, token: int) -> None:
    with torch.no_grad():
        model.model.embed_tokens.weight[:, _CONSTANT] = 3.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[_CONSTANT] = 0.0
            layer.mlp.down_proj.weight[_CONSTANT] = 0.0
        model.lm_head.weight.zero_()
        model.lm_head.weight[token, _CONSTANT] = 200.0
