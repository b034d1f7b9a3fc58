"""The part of the graph that makes numbers of text: an uncased BERT tokenizer for whole batches, without a loop.

`BertTokenizer` of onnxruntime-extensions would be one node, but it takes one text at a time, knows few accents and
no decomposition, leaves some alphabets their capitals, and keeps the known beginning of a word that it cannot cut
whole. So it is taken apart: a table of characters (`characters`), a regular expression for words, the library's
search for word pieces, and whole-number arithmetic that puts the pieces in rows.
"""

from __future__ import annotations

import json

import characters
import numpy as np
import onnx
from nodes import Nodes
from onnx import TensorProto, helper
from weights import Pretrained

EXTENSIONS = "ai.onnx.contrib"
RUNTIME = "com.microsoft"
# Private characters, which the table takes out of texts: nobody can write a special token.
_START, _END = "\ue001", "\ue000"
_ALONE = "".join(f"\\x{{{low:X}}}-\\x{{{high:X}}}" for low, high in characters.IDEOGRAPHS) + r"\pP$+<=>^`|~"
_WORDS = f"[{_ALONE}]|[^ {_ALONE}]+"
"""Ideographs and punctuation are words; so is what is between them and spaces."""
LONGEST_WORD = 100
"""Characters; a longer word is unknown."""


def add(graph: Nodes, model: Pretrained, text: str) -> tuple[str, str]:
    """Add the tokenizer of `text` [N]; return the names of the numbers and the mask, [N, tokens of the longest]."""
    plain = _plain(graph, text)
    framed = graph.add("StringConcat", [graph.texts("start", [f"{_START} "], [1]), plain], "started")
    framed = graph.add("StringConcat", [framed, graph.texts("stop", [f" {_END}"], [1])], "framed")
    words = graph.add("Tokenizer", [framed], "words", RUNTIME, tokenexp=_WORDS, mark=0, mincharnum=1, pad_value="")
    got, keep = _kept(graph, model.vocabulary.index("[UNK]"), _pieces(graph, model, words))
    return _rows(graph, model, text, got, keep)


def values() -> list[onnx.ValueInfoProto]:
    """Return the types behind the operators that ONNX does not know, from which the others are inferred."""
    return [
        helper.make_tensor_value_info("cut", TensorProto.STRING, ["N", None]),
        helper.make_tensor_value_info("plain", TensorProto.STRING, ["N"]),
        helper.make_tensor_value_info("words", TensorProto.STRING, ["N", None]),
        helper.make_tensor_value_info("pieces", TensorProto.STRING, [None]),
        helper.make_tensor_value_info("begins", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("limits", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", "T"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.FLOAT, ["N", "T"]),
    ]


def _plain(graph: Nodes, text: str) -> str:
    """Add the table of characters; return the name of the texts it makes [N]."""
    pairs = list(characters.table())
    # A space at the end, so that no text is empty: the operators around disagree on what that is.
    ended = graph.add("StringConcat", [text, graph.texts("space", [" "], [1])], "ended")
    # A single empty separator stands for character by character.
    cut = graph.add("Tokenizer", [ended], "cut", RUNTIME, separators=[""], mark=0, mincharnum=1, pad_value="")
    found = graph.add(
        "LabelEncoder",
        [cut],
        "found",
        "ai.onnx.ml",
        keys_strings=[character for character, _ in pairs],
        values_int64s=list(range(1, len(pairs) + 1)),
        default_int64=0,
    )
    becomes = graph.texts("becomes", ["", *(becomes for _, becomes in pairs)], [len(pairs) + 1])
    replaced = graph.add("Gather", [becomes, found], "replaced", axis=0)
    known = graph.add("Greater", [found, graph.constant("zero", 0, np.int64)], "known")
    chosen = graph.add("Where", [known, replaced, cut], "chosen")
    return graph.add(
        "StringJoin", [chosen, graph.texts("nothing", [""], [1]), graph.whole("along", 1)], "plain", EXTENSIONS
    )


def _pieces(graph: Nodes, model: Pretrained, words: str) -> tuple[str, str, str]:
    """Add the search for pieces; return the names of their numbers, and of where each word's begin and end."""
    numbers = {piece: number for number, piece in enumerate(model.vocabulary)}
    numbers |= {_START: numbers["[CLS]"], _END: numbers["[SEP]"]}
    flat = graph.add("Reshape", [words, graph.whole("all", -1)], "flat_words")
    graph.nodes.append(
        helper.make_node(
            "WordpieceTokenizer",
            # Each word is a row of its own: no rows are given.
            [flat, graph.whole("no_rows")],
            ["pieces", "row_lengths", "begins", "limits"],
            name="wordpieces",
            domain=EXTENSIONS,
            vocab=json.dumps(numbers, ensure_ascii=False, separators=(",", ":")),
            suffix_indicator="##",
            unknown_token="[UNK]",  # noqa: S106 - a piece of text, no secret
            max_input_chars_per_word=LONGEST_WORD,
        )
    )
    coded = graph.add(
        "LabelEncoder",
        ["pieces"],
        "coded",
        "ai.onnx.ml",
        keys_strings=list(numbers),
        values_int64s=list(numbers.values()),
        default_int64=numbers["[UNK]"],
    )
    return coded, "begins", "limits"


def _kept(graph: Nodes, unknown_number: int, pieces: tuple[str, str, str]) -> tuple[str, str]:
    """Add the grid of words by pieces, as wide as the word with most; return numbers, and which of them count."""
    coded, begins, limits = pieces
    lengths = graph.add("Sub", [limits, begins], "piece_counts")
    widest = graph.add("ReduceMax", [lengths], "widest", keepdims=0)
    zero, one = graph.constant("from", 0, np.int64), graph.constant("by", 1, np.int64)
    steps = graph.add("Range", [zero, widest, one], "steps")
    last = graph.whole("last_axis", 1)
    grid = graph.add("Add", [graph.add("Unsqueeze", [begins, last], "begin_column"), steps], "grid")
    valid = graph.add("Less", [grid, graph.add("Unsqueeze", [limits, last], "limit_column")], "valid")
    safe = graph.add("Where", [valid, grid, zero], "safe")
    got = graph.add("Gather", [coded, safe], "got", axis=0)
    # The library keeps the pieces before the one that it cannot find; BERT knows nothing of such a word.
    same = graph.add("Equal", [got, graph.constant("unk", unknown_number, np.int64)], "is_unknown")
    unknown = graph.add("And", [same, valid], "unknown")
    marks = graph.add("Cast", [unknown], "marks", to=TensorProto.INT64)
    worst = graph.add("ReduceMax", [marks, last], "bad_marks", keepdims=1)
    bad = graph.add("Cast", [worst], "bad", to=TensorProto.BOOL)
    good = graph.add("Or", [unknown, graph.add("Not", [bad], "fine")], "good")
    return got, graph.add("And", [valid, good], "keep")


def _rows(graph: Nodes, model: Pretrained, text: str, got: str, keep: str) -> tuple[str, str]:
    """Add what moves the pieces of each text to the left of its row, without gaps, and cuts what is too long."""
    known = {piece: number for number, piece in enumerate(model.vocabulary)}
    count = graph.add("Shape", [text], "texts")
    shape = graph.add("Concat", [count, graph.whole("rest", -1)], "row_shape", axis=0)
    kept = graph.add("Reshape", [keep, shape], "kept")
    numbers = graph.add("Reshape", [got, shape], "row_numbers")
    ones = graph.add("Cast", [kept], "kept_ones", to=TensorProto.INT64)
    running = graph.add("CumSum", [ones, graph.constant("along_row", 1, np.int64)], "running")
    place = graph.add("Sub", [running, "by"], "place")
    most = graph.constant("most", model.longest, np.int64)
    inside = graph.add("And", [kept, graph.add("Less", [place, most], "early")], "inside")
    # What is cut off or not kept all goes into one more column, which nobody reads.
    target = graph.add("Where", [inside, place, most], "target")
    wide = graph.add("Concat", [count, graph.whole("width", model.longest + 1)], "wide_shape", axis=0)
    pad = graph.constant("pad", model.config["pad_token_id"], np.int64)
    empty = graph.add("Expand", [pad, wide], "empty")
    rows = graph.add("ScatterElements", [empty, target, numbers], "rows", axis=1)
    total = graph.add("ReduceSum", [ones, "last_axis"], "total_pieces", keepdims=1)
    used = graph.add("Min", [total, most], "used")
    tokens = graph.add("ReduceMax", [used, graph.whole("both", 0, 1)], "tokens", keepdims=0)
    column = graph.add("Range", ["from", tokens, "by"], "column_numbers")
    ends = graph.add("Equal", [column, graph.add("Sub", [used, "by"], "end")], "ends")
    right = graph.add("Unsqueeze", [tokens, graph.whole("front", 0)], "right")
    cut = graph.add("Slice", [rows, graph.whole("left", 0), right, "last_axis"], "cut_rows")
    # A text that is too long ends with its special token all the same.
    ids = graph.add("Where", [ends, graph.constant("sep", known["[SEP]"], np.int64), cut], "input_ids")
    there = graph.add("Less", [column, used], "there_tokens")
    return ids, graph.add("Cast", [there], "attention_mask", to=TensorProto.FLOAT)
