"""Forms asked for in words: JSON, schemas, tables, counts; and prose that asks for none."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator
from langchain_core.output_parsers import PydanticOutputParser
from pydantic import BaseModel, Field

from agentlab.endpoint.answers._form import Form, schema_of
from agentlab.endpoint.answers._prompt import read
from agentlab.endpoint.answers.answer import hear, take
from agentlab.endpoint.answers.replies import Replies
from agentlab.endpoint.contract.request import ChatRequest
from agentlab.settings import DATA

REPLIES = Replies(DATA / "replies")
ROLES = ("system", "developer", "user")


def ask(*messages: str | tuple[str, str], seed: int = 1, **fields: Any) -> str:
    """Return the answer to (role, text) pairs; a text alone is the user's."""
    said = [("user", each) if isinstance(each, str) else each for each in messages]
    body = {"model": "m", "messages": [{"role": r, "content": t} for r, t in said], **fields}
    request = msgspec.convert(body, ChatRequest)
    return take(hear(request, REPLIES), REPLIES, lambda: random.Random(seed)).text


def told(role: str, form: str) -> list[tuple[str, str]]:
    """Return a question about Busan, with the form asked for by this role."""
    if role == "user":
        return [("user", f"Describe Busan. {form}")]
    return [(role, f"You are a geographer. {form}"), ("user", "Describe Busan.")]


def test_each_form_that_the_docs_list_is_asked_for_by_their_words_alone():
    """As they stand in the table, in front of nothing and behind nothing."""
    docs = (Path(__file__).parents[1] / "docs" / "local_model.md").read_text(encoding="utf-8")
    table = docs.partition("## The form of its answers")[2].partition("\n\nWhere a system's")[0]
    forms = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    asked = {form: read(form) for form in forms}
    assert len(asked) >= 17
    assert [form for form, it in asked.items() if not (it.form or it.headings or it.length)] == []


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("Return the result as JSON with 'setup' and 'punchline' keys.", "setup punchline"),
        ("Answer in JSON with keys: a, b", "a b"),
        ("Respond with a JSON object with the fields a, b and c.", "a b c"),
        ("Reply with only a JSON object containing name, age and city.", "name age city"),
        ('Give me JSON with the keys "x" and "y".', "x y"),
        ("Output valid JSON. The keys must be id and label.", "id label"),
        ("Write it as JSON with properties title and year.", "title year"),
        ("Give me JSON: title, year, place", "title year place"),
        ("Reply in JSON. Include title, year and place.", "title year place"),
        ("Extract the town's name and size as JSON.", "name size"),
        ("Answer as JSON with the key verdict.", "verdict"),
        ("Antworte in JSON mit den Schlüsseln titel und jahr.", "titel jahr"),
        ("제목, 연도, 장소를 JSON으로 주세요.", "제목 연도 장소"),
        ("Produce JSON with the keys `q1`, `q2` and `q3`.", "q1 q2 q3"),
        ("Answer as a JSON object with name, age and city as keys.", "name age city"),
        ("Return JSON with a single key 'answer'.", "answer"),
        ("Return JSON with these fields:\n- name: what it is called\n- size (number)", "name size"),
        ("Your output must be JSON with the following keys:\n1. alpha\n2. beta", "alpha beta"),
        ("Use JSON with the following structure: title, body.", "title body"),
        ("Give a JSON response with a `summary` field and a `score` field.", "summary score"),
        ("I want JSON with two fields, `ok` (boolean) and `why` (string).", "ok why"),
        ("JSON을 만들어 주세요. 필드는 name(문자열), age(정수)입니다.", "name age"),
        ("다음 키를 포함하는 JSON을 출력하세요: 결과, 평가", "결과 평가"),
        ("name과 age 키를 가진 JSON으로 답하세요.", "name age"),
        ("이름, 인구 필드를 가진 JSON 객체로 답하세요.", "이름 인구"),
        ("JSON 형식으로 답하세요. 키: 제목, 요약", "제목 요약"),
        ("'이름'과 '나이'를 키로 하는 JSON만 출력하세요.", "이름 나이"),
        ("name과 age 키를 가진 JSON", "name age"),
        ("name과 age 키를 가진 JSON을 주세요", "name age"),
        ("이름, 인구 필드가 있는 JSON이 필요합니다.", "이름 인구"),
        ("JSON with the keys name and age (int)", "name age"),
        ("A JSON object with name and age", "name age"),
        ("JSON keys: summary, risks.", "summary risks"),
        ("Output JSON {summary, themes}.", "summary themes"),
        ("Describe it as a JSON object: size, place.", "size place"),
        (
            "Return it in JSON, using 'text' for the answer and 'level' for how hard it is.",
            "text level",
        ),
        (
            'Reply with a JSON object. It needs a "steps" array and a "minutes" integer.',
            "steps minutes",
        ),
        ("Return JSON with a single key, binary_score.", "binary_score"),
        ("Output must be JSON with fields:\n  name: string\n  age: integer", "name age"),
        ("Réponds en JSON avec les clés nom et lieu.", "nom lieu"),
        ("JSON形式で回答してください。キーは title と summary です。", "title summary"),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_json_has_the_keys_that_words_name(role: str, form: str, keys: str):
    """In any message, in English and Korean, and nothing stands beside the JSON."""
    assert list(json.loads(ask(*told(role, form)))) == keys.split()


@pytest.mark.parametrize("role", ROLES)
def test_json_mode_takes_the_keys_from_words(role: str):
    """With `response_format: json_object`, too."""
    form = told(role, "Return the result as a JSON with 'setup' and 'punchline' keys.")
    answer = json.loads(ask(*form, response_format={"type": "json_object"}))
    assert list(answer) == ["setup", "punchline"]


def test_types_that_words_name_are_kept():
    """A number, an integer, a boolean, and a list."""
    answer = json.loads(
        ask(
            "Describe Busan as JSON with the keys `size` (number), `people` (int), `coastal` "
            "(boolean) and `tags` (list of strings)."
        )
    )
    assert [type(value) for value in answer.values()] == [float, int, bool, list]
    assert all(isinstance(tag, str) for tag in answer["tags"])


def test_a_list_of_words_is_a_list():
    """Of texts, as many as are wanted."""
    for asks in ("Return only a JSON array of 4 strings.", "List four towns as a JSON list."):
        words = json.loads(ask(asks))
        assert len(words) == 4 and all(isinstance(word, str) for word in words)


@pytest.mark.parametrize(
    "form",
    [
        "Gib das Ergebnis als JSON mit den Schlüsseln name und age zurück.",
        "부산을 설명하고 name, age 필드를 포함한 JSON으로 출력해 주세요.",
    ],
)
def test_a_verb_beside_names_is_no_part_of_them(form: str):
    """The German one behind them, and the Korean one in front."""
    assert list(json.loads(ask(form))) == ["name", "age"]


def test_a_key_with_nothing_but_a_range_is_a_number():
    """A range of words is none."""
    keys = "sure (between 0 and 1), stars (1-5) and text (10 to 20 words)"
    answer = json.loads(ask(f"Describe Busan. Answer in JSON with the keys {keys}."))
    assert 0 <= answer["sure"] <= 1 and 1 <= answer["stars"] <= 5 and answer["text"]
    assert isinstance(answer["text"], str)


@pytest.mark.parametrize("seed", range(5))
def test_options_and_ranges_of_a_key_are_kept(seed: int):
    """In a sketch, or behind its name; what may be a unit is no choice."""
    bare = "mood (calm/wild/mild), wind (integer 3-9), wet (yes/no) and speed (km/h)"
    answer = json.loads(ask(f"Answer in JSON with the keys {bare}.", seed=seed))
    assert answer["mood"] in ("calm", "wild", "mild") and answer["wet"] in ("yes", "no")
    assert answer["speed"] not in ("km", "h")
    sketch = 'Reply in JSON: {"mood": "calm" | "wild", "wind": <number 3-9>}'
    words = 'Give JSON with the keys mood ("calm" or "wild") and wind (integer 3-9).'
    for form in (sketch, words):
        answer = json.loads(ask(form, seed=seed))
        assert answer["mood"] in ("calm", "wild") and 3 <= answer["wind"] <= 9


@pytest.mark.parametrize("seed", range(5))
def test_options_of_a_key_may_be_said_in_a_sentence(seed: int):
    """Behind the key, whether it is in a list of lines or not."""
    keys = "mood, one of calm, wild or mild, wind (one of: low, high) and tide (high or low)"
    answer = json.loads(ask(f"Answer in JSON with the keys {keys}.", seed=seed))
    assert answer["mood"] in ("calm", "wild", "mild")
    assert answer["wind"] in ("low", "high") and answer["tide"] in ("high", "low")
    lines = '- mood: "calm" | "wild"\n- wet - true or false\n- days: list of 2 integers'
    answer = json.loads(ask(f"Reply in JSON with the keys:\n{lines}", seed=seed))
    assert answer["mood"] in ("calm", "wild") and isinstance(answer["wet"], bool)
    assert [type(day) for day in answer["days"]] == [int, int]


@pytest.mark.parametrize(
    "form",
    [
        "Return JSON with the key `bays`, an array of 2 objects with `name` and `depth` (integer).",
        "Return JSON with the key bays (list of two objects with name and depth (integer)).",
        "Return JSON with a `bays` key, a list of 2 objects with `name` and `depth` (integer).",
    ],
)
def test_a_key_holds_the_objects_that_are_described(form: str):
    """As many as are said, with their keys."""
    bays = json.loads(ask(form))["bays"]
    assert [[*bay] for bay in bays] == [["name", "depth"]] * 2


SKETCHES = {
    "TypeScript": """interface Town {
      name: string; // as it is signed
      mood: "calm" | "wild";
      tags: string[];
      port: { depth: number; open?: boolean };
    }""",
    "a type on one line": "{ name: string, mood: 'calm' | 'wild', tags: string[],"
    " port: { depth: number; open: boolean } }",
    "a class": """class Town(BaseModel):
    name: str = Field(description="as it is signed, in full")
    mood: Literal['calm', 'wild']
    tags: list[str]
    port: dict""",
    "what Python prints": "{'name': 'str', 'mood': 'calm or wild', 'tags': ['str', 'str'],"
    " 'port': {'depth': 2.5, 'open': True}}",
    "placeholders": """{
      "name": "<string>",
      "mood": "calm|wild",  // nothing else
      "tags": ["...", ...],
      "port": {"depth": <number>, "open": true or false}
    }""",
}


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("role", ROLES)
def test_a_sketch_is_followed_in_its_nesting(role: str, sketch: str):
    """However it is written: as types, as a class, or as an example with gaps and comments."""
    answer = json.loads(ask(*told(role, f"Answer in JSON like this:\n{SKETCHES[sketch]}\n")))
    assert list(answer) == ["name", "mood", "tags", "port"]
    assert answer["mood"] in ("calm", "wild") and {*map(type, answer["tags"])} == {str}
    if sketch != "a class":
        assert [type(each) for each in answer["port"].values()] == [float, bool]


@pytest.mark.parametrize("role", ROLES)
def test_an_example_in_front_of_data_is_the_one_that_counts(role: str):
    """The data hold no order."""
    example = 'Reply like this: {"mood": "calm"}. The records are [{"id": 1}, {"id": 2}].'
    assert list(json.loads(ask(*told(role, f"{example} Answer in JSON.")))) == ["mood"]


def test_types_in_a_sketch_are_kept():
    """Whether the sketch is JSON or has comments."""
    sketch = 'Describe Busan. Answer in JSON:\n{"name": string, // its name\n"people": integer}'
    assert [type(value) for value in json.loads(ask(sketch)).values()] == [str, int]
    example = 'Describe Busan. Answer in JSON: {"people": "int", "tags": "list of strings"}'
    assert [type(value) for value in json.loads(ask(example)).values()] == [int, list]


@pytest.mark.parametrize(
    ("form", "many"),
    [
        ('Answer in JSON like this: [{"name": "x", "age": 3}, {"name": "y", "age": 4}]', 2),
        ("Return a JSON array of four objects, each with the keys name and age.", 4),
        ("Write 5 examples as a JSON list, each with name and age fields.", 5),
        ("name과 age 키를 가진 객체 2개를 JSON 배열로 출력하세요.", 2),
        ("A JSON array of three objects with name and age", 3),
        ("a JSON array of three objects, each with the keys name and age", 3),
    ],
)
def test_a_list_of_objects_is_a_list(form: str, many: int):
    """As many as were asked for or shown."""
    answer = json.loads(ask(f"Name towns. {form}"))
    assert [list(each) for each in answer] == [["name", "age"]] * many


@pytest.mark.parametrize(
    "prompt",
    [
        "Write about JSON.",
        "Explain what a JSON object is.",
        "What is the key point of the article?",
        "Compare JSON and YAML.",
        "How do I parse a JSON object with the keys a and b in Python?",
        "Write a Python function that returns JSON with the keys a and b.",
        "What does the field name mean in this JSON?",
        "Given a JSON object with the fields name and age, write a sentence.",
        "The tools return their results as JSON. Describe Busan.",
        "The input is a JSON list of towns. Summarise it.",
        "Describe the fields of wheat and barley.",
        "Describe the table in the kitchen.",
        "Was ist eine Tabelle?",
        "Explain JSON keys: what are they?",
        "Explain the columns of the temple.",
        "Review sections A, B and C of the contract.",
        "Summarise the sections on history and geography.",
        "What does the <div> tag do?",
        "What does <risks><item>...</item></risks> mean?",
        "How would I use <b>...</b>?",
        "Explain why people say yes or no.",
        'Explain this JSON Schema: {"type": "object", "properties": {"a": {"type": "string"}}}',
        "Please don't reply in JSON. Describe Busan.",
        "Describe Busan, but not in JSON.",
        "Never answer true or false. Describe Busan.",
        "Describe Busan without a table and without any headings.",
        "Our list with the columns Town and Size is wrong. Why?",
        "My slides have three bullet points. Describe Busan.",
        'The server sent {"town": "Busan", "size": 3}. Describe Busan.',
        "I read 300 words a minute. Describe Busan.",
        "JSON에 대해 설명하세요.",
        "JSON을 주고받는 이유를 쓰세요.",
        "JSON 응답을 분석해 주세요.",
        "JSON을 보내는 방법을 쓰세요.",
        "name과 age 키를 가진 JSON은 무엇인가요?",
        "A JSON array of objects is slower than a table. Why?",
        "JSON with comments was never a standard. Why?",
        "밭의 열쇠에 대해 쓰세요.",
    ],
)
def test_words_that_ask_for_no_form_are_answered_in_prose(prompt: str):
    """Whole sentences, without JSON, tables, headings or bullets."""
    answer = ask(prompt)
    assert answer.endswith(".") and len(answer) > 40
    assert not re.search(r"[{}|#]|^[-<\d]", answer, re.MULTILINE)


@pytest.mark.parametrize(
    "prompt",
    ["The letter has 9 sentences. Answer in two sentences.",
     "Answer in two sentences:\n\nThe letter has 9 sentences.",
     "Do not use more than two sentences.", "Don't list bullets. Write two sentences."],
)  # fmt: skip
def test_what_is_said_of_a_text_that_is_there_is_no_order(prompt: str):
    """And "no more than" forbids nothing but more."""
    assert ask(prompt).count(".") == 2


@pytest.mark.parametrize(
    "more", ["Do not wrap the JSON in a fence.", "Don't forget the JSON.", "Return only JSON."]
)
def test_what_is_forbidden_leaves_the_form_that_is_asked_for(more: str):
    """An order beside it counts."""
    assert list(json.loads(ask(f"Return JSON with the keys a and b. {more}"))) == ["a", "b"]


def test_the_user_overrules_the_system_and_the_last_words_count():
    """When both name keys, the user's are used; of two lists, the later one."""
    system = ("system", "Always answer in JSON with the keys a and b.")
    user = "Describe Busan. Answer in JSON with the keys c and d."
    assert list(json.loads(ask(system, user))) == ["c", "d"]
    later = "Answer in JSON with the keys a and b. No: use the keys c and d in the JSON."
    assert list(json.loads(ask(later))) == ["c", "d"]


# Schemas in text


class Town(BaseModel):
    """What the prompts below ask for."""

    name: str
    people: int = Field(ge=1000)
    coastal: bool
    districts: list[str] = Field(min_length=2, max_length=2)


SCHEMA = Town.model_json_schema()
WRITTEN = {
    "on one line": json.dumps(SCHEMA),
    "pretty-printed": json.dumps(SCHEMA, indent=2),
    "in a fence": f"```json\n{json.dumps(SCHEMA, indent=4)}\n```",
    "as properties alone": json.dumps(SCHEMA["properties"]),
    "as Python prints it": repr(SCHEMA),
    "as CrewAI wraps it": json.dumps({"type": "json_schema", "json_schema": {"schema": SCHEMA}}),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("mode", ["json_object", "text"])
def test_a_schema_in_a_message_is_filled(mode: str, role: str, written: str):
    """However it is written, and whoever writes it; JSON mode or not."""
    form = f"Respond with JSON that conforms to this schema:\n{WRITTEN[written]}\n"
    answer = json.loads(ask(*told(role, form), response_format={"type": mode}))
    assert {"people", "name", "coastal", "districts"} == answer.keys()
    if written != "as properties alone":
        assert Draft202012Validator(SCHEMA).is_valid(answer)


def test_a_schema_in_doubled_braces_is_filled():
    """As a template has them that nobody has filled in."""
    schema = json.dumps(SCHEMA).replace("{", "{{").replace("}", "}}")
    assert Town.model_validate_json(ask(f"Describe Busan. Answer as JSON by this schema: {schema}"))


def test_langchains_pydantic_parser_gets_its_schema_filled_and_not_its_example():
    """Its instructions show another schema first."""
    parser = PydanticOutputParser(pydantic_object=Town)
    answer = ask(f"Answer the query.\n{parser.get_format_instructions()}\nDescribe Busan.")
    assert isinstance(parser.parse(answer), Town)


def test_a_schema_of_an_earlier_message_still_holds():
    """A client that tells of its errors does not repeat the schema."""
    answer = ask(
        f"Describe Busan. Follow this JSON schema: {json.dumps(SCHEMA)}",
        ("assistant", "Busan is large."),
        'That was no JSON: [{"type": "missing", "loc": ["name"]}]. Try again.',
    )
    assert Town.model_validate_json(answer)


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}',
        '{"type": "object", "properties": {"a": {"type": "nonsense"}}, "required": ["a"]}',
        '{"type": "object", "properties": {"a": {"type":',
        '{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}',
        '{"type": "array", "items": {"type": "string"}, "minItems": 1000000000}',
        '{"type": "object", "properties": {"a": {"type": "integer", "minimum": 9, "maximum": 1}}}',
    ],
)
@pytest.mark.parametrize("mode", ["json_object", "text"])
def test_a_schema_that_cannot_be_filled_gets_an_ordinary_answer(mode: str, schema: str):
    """No error: the words of a prompt are not checked as a field of the request is."""
    answer = ask(f"Answer as JSON by this schema: {schema}", response_format={"type": mode})
    assert answer and "properties" not in answer and "minItems" not in answer


# Prose of a shape


@pytest.mark.parametrize(
    "form",
    [
        "Use three headings: Background, Method, Outlook.",
        "Write a report with the sections Background, Method and Outlook.",
        "Structure it under the headings 'Background', 'Method' and 'Outlook'.",
        "Write a report. Sections: Background, Method, Outlook.",
        "배경 대신 영어로: 제목은 Background, Method, Outlook으로 하세요.",
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_headings_named_in_a_sentence_come_in_order(role: str, form: str):
    """Each with text below it."""
    answer = ask(*told(role, form))
    assert re.findall(r"^## (.+)$", answer, re.M) == ["Background", "Method", "Outlook"]
    assert all(len(part) > 10 for part in re.split(r"^## .+$", answer, flags=re.M)[1:])


@pytest.mark.parametrize(
    ("form", "columns", "rows"),
    [
        ("Give a table with the columns Name, Price and Rating and five rows.", 3, 5),
        ("Make a Markdown table with columns: Name, Price (number), Rating (int).", 3, 3),
        ("Answer with a table; its columns are 'Name', 'Price'. Write 2 rows.", 2, 2),
        ("Compare Busan and Seoul in a table.", 2, 3),
        ("a table with the columns A and B, three rows", 2, 3),
        ("Facts, please: table with columns Name, Price; 4 rows", 2, 4),
        ("Present it as a table with the headers Name | Age.", 2, 3),
        ("Make a 3-column table: Name, Age, City.", 3, 3),
        ("Output a Markdown table (columns: Task, Owner).", 2, 3),
        ("Create a table showing name, age and city for 2 people.", 3, 2),
        ("Make a table of 4 bays with the columns Bay and Depth.", 2, 4),
        ("Erstelle eine Tabelle mit den Spalten Stadt und Land.", 2, 3),
        ("Antworte als Tabelle mit 4 Zeilen.", 2, 4),
        ("이름, 가격, 평점 열이 있는 표를 4행으로 만드세요.", 3, 4),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_a_table_has_the_columns_and_rows_asked_for(role: str, form: str, columns: int, rows: int):
    """In Markdown: a header, a rule, and rows of as many cells."""
    lines = ask(*told(role, form)).splitlines()
    assert re.fullmatch(r"(\| --- )+\|", lines[1])
    assert [line.count("|") - 1 for line in lines] == [columns] * (rows + 2)


@pytest.mark.parametrize(
    "form",
    ["Give me CSV with a header row: name,age and 3 rows.", "Output CSV with columns name, age.",
     "Return it in CSV format with the header name,age."],
)  # fmt: skip
@pytest.mark.parametrize("role", ROLES)
def test_csv_has_the_columns_asked_for(role: str, form: str):
    """A header, and rows of as many cells; nothing is quoted."""
    lines = [line.split(",") for line in ask(*told(role, form)).splitlines()]
    assert lines[0] == ["name", "age"] and [len(line) for line in lines] == [2] * 4


@pytest.mark.parametrize(
    "form",
    [
        "Answer in this format:\nMood: <calm or wild>\nReason: <one sentence>",
        "Respond like this:\nMood: [calm|wild]\nReason: ...",
        "Use exactly this template:\n\n**Mood:** {calm or wild}\n**Reason:** your reason",
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_lines_with_labels_are_written_as_shown(role: str, form: str):
    """With what each line lets its label say."""
    assert re.fullmatch(r"Mood: (?:calm|wild)\nReason: \S.+", ask(*told(role, form)))


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("End your answer with DONE.", r".+\nDONE"),
        ("Reply with TERMINATE when the task is done.", r".+\nTERMINATE"),
        ("Begin your reply with 'Dear reader,'.", "Dear reader, .+"),
        ("Start with \"Sure:\" and finish with 'Over'.", r"Sure: .+\nOver"),
        ("Files begin with `a`; their names end with `b`.", r"(?!a ).+\."),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_an_answer_begins_and_ends_as_it_is_told_to(role: str, form: str, pattern: str):
    """With words in quotes or in capitals; of other things nothing follows."""
    assert re.fullmatch(pattern, ask(*told(role, form)))


@pytest.mark.parametrize(
    ("form", "pattern", "many"),
    [
        ("Give me 4 tips.", r"^- ", 4),
        ("List three of its bays.", r"^- ", 3),
        ("다섯 가지를 번호 목록으로 쓰세요.", r"^\d\. ", 5),
        ("Antworte in zwei Sätzen.", r"[.](?:\s|$)", 2),
        ("Use exactly 4 bullet points.", r"^- ", 4),
        ("Write a numbered list of five.", r"^\d\. ", 5),
        ("Write a list of three rivers.", r"^- ", 3),
        ("Answer in at most three sentences.", r"[.](?:\s|$)", 3),
        ("Answer with nine sentences.", r"[.](?:\s|$)", 9),
        ("세 문장 이내로 쓰세요.", r"[.](?:\s|$)", 3),
        ("Answer in fewer than 4 sentences.", r"[.](?:\s|$)", 3),
        ("Answer in two sentences or less.", r"[.](?:\s|$)", 2),
        ("Use more than 3 bullet points.", r"^- ", 4),
        ("Use 5 bullet points or fewer.", r"^- ", 5),
        ("네 개의 번호 목록으로 쓰세요.", r"^\d\. ", 4),
        ("5개의 글머리 기호로 쓰세요.", r"^- ", 5),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_what_is_counted_in_words_is_counted_in_the_answer(
    role: str, form: str, pattern: str, many: int
):
    """Bullets, numbers and sentences, by whoever asks."""
    assert len(re.findall(pattern, ask(*told(role, form)), re.MULTILINE)) == many


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("form", "least", "most"),
    [
        ("no more than 50 words", 1, 50),
        ("at most 12 words", 1, 12),
        ("under 30 words", 1, 29),
        ("fewer than 25 words", 1, 24),
        ("a maximum of 18 words", 1, 18),
        ("35 words or less", 1, 35),
        ("not more than 22 words", 1, 22),
        ("40 words or more", 40, 70),
        ("more than 33 words", 34, 70),
        ("exactly 31 words", 31, 31),
        ("between 30 and 45 words", 30, 45),
        ("50-55 words", 50, 55),
        ("at least 60 words", 60, 90),
        ("one word", 1, 1),
    ],
)
def test_a_bound_in_words_is_kept(form: str, least: int, most: int, seed: int):
    """Not to the nearest sentence, but strictly."""
    assert least <= len(ask(f"Describe Busan in {form}.", seed=seed).split()) <= most


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("form", "most"),
    [("in at most 120 characters", 120), ("in under 60 chars", 60), ("(max 40 characters)", 40),
     ("in 280 characters or less", 280)],
)  # fmt: skip
def test_a_bound_in_characters_is_kept(form: str, most: int, seed: int):
    """At the end of a word, and as a sentence."""
    answer = ask(f"Describe Busan {form}.", seed=seed)
    assert most // 3 < len(answer) <= most and answer.endswith(".")
    assert len(ask("Write a play with 12 characters.", seed=seed)) > 40


def test_a_bound_in_korean_words_is_kept():
    """The word for it stands behind the number."""
    assert all(len(ask("부산을 30단어 이하로 설명하세요.", seed=s).split()) <= 30 for s in range(8))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("Answer yes or no.", ("yes", "no")),
        ("Reply with only 'yes' or 'no'.", ("yes", "no")),
        ("Is it large? (yes/no)", ("yes", "no")),
        ("Answer true or false.", ("true", "false")),
        ("예 또는 아니요로 답하세요.", ("예", "아니요")),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_one_of_a_few_words_is_answered_with_one(role: str, form: str, words: tuple[str, ...]):
    """And with nothing else."""
    assert ask(*told(role, form)) in words


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("Pick one of: cold, warm, hot.", "cold warm hot"),
        ("Say which of these it is, one of [small, large].", "small large"),
        ("Label it as calm, rough or wild. Answer with one word.", "calm rough wild"),
        ("A, B or C only. Answer A, B or C.", "A B C"),
        ("Is it large? A, B or C only", "A B C"),
        ("'north' or 'south' only, please.", "north south"),
        ("Which is it? Options: old; new. Answer with the option only.", "old new"),
        ("Choose exactly one of the following:\n- inland\n- coastal", "inland coastal"),
        ("Reply 'north', 'south' or 'neither'.", "north south neither"),
        ("Give a binary grade 'pass' or 'fail'.", "pass fail"),
        ("Is it calm?\nA) yes\nB) no\nC) at times\nAnswer with the letter only.", "A B C"),
        ("Choose the best option (A, B or C). Reply with a single letter.", "A B C"),
        ("Is it friendly or hostile? Output only the label.", "friendly hostile"),
        ("How is it? [calm|wild]", "calm wild"),
        ("Beantworte die Frage nur mit ja oder nein.", "ja nein"),
        ("Who acts next? Select one of: ['FINISH', 'Writer']", "FINISH Writer"),
        ("찬성/반대/기권 중 하나로 답하세요.", "찬성 반대 기권"),
        ("다음 중 하나만 고르세요: 바다, 강, 산.", "바다 강 산"),
        ("맞음 또는 틀림으로 답하세요.", "맞음 틀림"),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_one_of_some_options_is_answered_with_one(role: str, form: str, options: str):
    """However they are listed, and with nothing else; not always the same."""
    assert {ask(*told(role, form), seed=seed) for seed in range(20)} == {*options.split()}


@pytest.mark.parametrize(
    ("form", "least", "most"),
    [
        ("Rate it from 1 to 5. Reply with only the number.", 1, 5),
        ("On a scale of 10-20, how large is it? Answer with just an integer.", 10, 20),
        ("Output only a single digit.", 0, 9),
        ("Score (0-100):", 0, 100),
        ("Please return a number between 3 and 4.", 3, 4),
        ("1부터 5까지의 숫자로만 답하세요.", 1, 5),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_a_number_alone_is_in_the_range_asked_for(role: str, form: str, least: int, most: int):
    """And is whole, unless decimals are asked for."""
    said = [int(ask(*told(role, form), seed=seed)) for seed in range(9)]
    assert least <= min(said) <= max(said) <= most


@pytest.mark.parametrize(
    "prompt",
    [
        "Answer in one or two sentences. Describe Busan.",
        "Describe one of the rivers, lakes and seas.",
        "Rate Busan from 1 to 10 and explain your choice.",
        "Compare the options: tea, coffee, milk.",
        "Should I choose tea or coffee?",
        "Answer in English or Korean. Describe Busan.",
        "What is the difference between 'affect' and 'effect'?",
        "Give each town a score.",
        "Describe a place for cats or dogs only.",
        "Describe members or staff only areas.",
        "Write a letter about A. B. Smith.",
    ],
)
def test_options_that_are_only_spoken_of_are_answered_in_prose(prompt: str):
    """In whole sentences."""
    assert len(ask(prompt)) > 40


@pytest.mark.parametrize(
    ("form", "tags"),
    [
        ("Put your answer in <answer></answer> tags.", "answer"),
        ("Think in <thinking> tags, then answer in <answer> tags.", "thinking answer"),
        ("Respond in this format:\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n",
         "reasoning answer"),
        ("Wrap the name in <name> and the reason in <why>.", "name why"),
        ("Return <city>{city}</city>.", "city"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ROLES)
def test_tags_that_are_asked_for_enclose_the_answer(role: str, form: str, tags: str):
    """Each opened and closed, in order."""
    answer = ask(*told(role, form))
    assert re.findall(r"<(\w+)>.+?</\1>", answer, re.S) == tags.split()


def test_tags_that_are_repeated_within_others_hold_a_list():
    """In the nesting that is shown; the other tags have the types that the fields are told."""
    typed = "1. `title` (str): \n2. `risks` (list[str]): \n3. `outlook` (float): up to 1"
    asks = "Wrap the fields in `<title>`, then `<risks>`, then `<outlook>`. Use this structure: "
    answer = ask(("system", typed), f"{asks}<risks><item>...</item></risks>")
    fields = dict(re.findall(r"<(title|risks|outlook)>(.+?)</\1>", answer))
    assert list(fields) == ["title", "risks", "outlook"] and float(fields["outlook"]) >= 0
    assert re.fullmatch(r"(<item>[^<]+</item>){2,}", fields["risks"])


@pytest.mark.parametrize(
    "form",
    [
        "Put the risks in <risks><item>...</item></risks>",
        "Answer in this format:\n<risks>\n  <item>...</item>\n  <item>...</item>\n</risks>",
        "Reply as <risks><item>[risk]</item>...</risks>.",
        "List risks as <risks><item></item></risks>",
        "Use this form: <risks><item>...</item></risks>",
        "<risks><item>...</item></risks> 형식으로 답해 줘",
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_a_list_in_tags_needs_no_other_tags(role: str, form: str):
    """It is the whole answer, however it is asked for."""
    assert re.fullmatch(r"<risks>(<item>[^<]+</item>){2,}</risks>", ask(*told(role, form)))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("gap", ["", "\n  "])
def test_tags_of_several_names_within_others_are_fields(role: str, gap: str):
    """Each once and in order, but those shown again are a list."""
    inner = ["<name>...</name>", "<age>...</age>", "<tag>...</tag>", "<tag>...</tag>"]
    answer = ask(*told(role, f"Answer in <person>{gap}{gap.join(inner)}\n</person>"))
    fields = r"<name>[^<]+</name><age>[^<]+</age>(<tag>[^<]+</tag>){2,}"
    assert re.fullmatch(rf"<person>{fields}</person>", answer)


def test_lists_in_tags_stand_in_order_beside_others_of_the_same_inner_tag():
    """Whatever they are called: a type's name is a tag, too, where it is closed."""
    tags = "<text></text>, <list><item>...</item></list> and <costs><item>...</item></costs>"
    answer = ask(f"Describe Busan. Answer in {tags}.")
    assert re.findall(r"^<(\w+)>.+</\1>$", answer, re.M) == ["text", "list", "costs"]


def test_a_form_that_leaves_nothing_to_say_is_answered_in_prose():
    """Whatever the form is, an answer is never empty."""
    writer = REPLIES.writer("Describe Busan.", random.Random(1), (), as_json=False)
    writer.form = Form("tags", schema_of({}))
    assert writer.write().endswith(".")


def test_tags_around_what_is_given_are_not_answered_with():
    """They hold the document, not the answer."""
    answer = ask("<document>The tide is high.</document>\nSummarise the document in one sentence.")
    assert "<" not in answer and answer.count(".") == 1


@pytest.mark.parametrize(
    "text",
    ["{" * 20_000, '{"a":' * 3000, "keys " * 4000 + "json", "x text, " * 2500 + "keys as json",
     "<a> " * 5000 + "answer", "table with columns a, b and c " * 700, "'" * 9000 + " json keys",
     "Reply with one of " * 900, "이름과 " * 4000 + "키 JSON으로", '{"a":[1,' * 2500,
     "{'a': x | " * 1300, "JSON with keys " + "\n\n" * 6000, "A) x\n" * 2400,
     "Format:\n" + "A: <b>\n" * 1700],
)  # fmt: skip
def test_hostile_prompts_get_an_answer(text: str):
    """In any role; that it does not take long, the whole suite's time limit shows."""
    assert ask(("system", text), text)


def test_what_utf_8_cannot_hold_is_not_imitated():
    """Half of a pair of surrogates, escaped in an example, would break the answer."""
    assert ask('Answer in JSON: {"\\ud800": "x"}').encode()
