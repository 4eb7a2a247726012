"""Multiple choice: one letter as a word of its own, in every language of MMMLU and in Yoruba, or none."""

from __future__ import annotations

import math
import unicodedata

import pytest

from whetstone.grading import extract, grade

OPTIONS = {"A": "270", "B": "$300", "C": "a dog", "D": "Democracy"}

# locale of MMMLU, a statement of the answer as models write it, the letter
LOCALES = [
    ("EN", "Answer: C", "C"),
    ("EN", "The correct answer is (C).", "C"),
    ("AR_XY", "الإجابة: ب", "B"),
    ("AR_XY", "الإجابة الصحيحة هي (ج)", "C"),
    ("AR_XY", "الجواب: أ", "A"),
    ("AR_XY", "الإجابة هي د.", "D"),
    ("BN_BD", "উত্তর: খ", "B"),
    ("BN_BD", "উত্তর: ড", "C"),
    ("BN_BD", "সঠিক উত্তর হল B", "B"),
    ("DE_DE", "Die richtige Antwort ist B.", "B"),
    ("DE_DE", "Antwort: D", "D"),
    ("ES_LA", "La respuesta correcta es la B.", "B"),
    ("ES_LA", "Respuesta: C", "C"),
    ("FR_FR", "La bonne réponse est la lettre D.", "D"),
    ("FR_FR", "Réponse : B", "B"),
    ("HI_IN", "सही उत्तर B है", "B"),
    ("HI_IN", "उत्तर: ग", "C"),
    ("ID_ID", "Jawaban yang benar adalah B.", "B"),
    ("ID_ID", "Jawaban: C", "C"),
    ("IT_IT", "La risposta corretta è C.", "C"),
    ("IT_IT", "Risposta: D", "D"),
    ("JA_JP", "正解はBです。", "B"),
    ("JA_JP", "答え：Ｃ", "C"),
    ("KO_KR", "정답은 C입니다.", "C"),
    ("KO_KR", "답: D", "D"),
    ("PT_BR", "A resposta correta é a letra C.", "C"),
    ("PT_BR", "Resposta: B", "B"),
    ("SW_KE", "Jibu sahihi ni C.", "C"),
    ("SW_KE", "Jibu: A", "A"),
    ("YO_NG", "Ìdáhùn: C", "C"),
    ("YO_NG", "Idahun: C", "C"),
    ("YO_NG", "Ìdáhùn tó tọ́ ni B.", "B"),
    ("YO_NG", "Àṣàyàn: D", "D"),
    ("ZH_CN", "答案：Ｄ", "D"),
    ("ZH_CN", "正确答案是 C。", "C"),
]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize(("locale", "text", "letter"), LOCALES)
def test_every_locale_in_every_normal_form(locale: str, text: str, letter: str, form: str) -> None:
    answer = extract(unicodedata.normalize(form, text), "choice")
    assert (answer.value, answer.rule) == (letter, "answer_is"), locale


READ = [
    ("A", "A", "bare"),
    ("c", "C", "bare"),
    ("(C)", "C", "bare"),
    ("C.", "C", "bare"),
    (r"\text{(C)}", "C", "bare"),
    ("B)300", "B", "bare"),
    ("option c", "C", "bare"),
    ("Option C: a dog", "C", "bare"),
    ("answer: b", "B", "answer_is"),
    ("Answer: (C)", "C", "answer_is"),
    ("Answer: **B**", "B", "answer_is"),
    ("The answer is B because A is wrong.", "B", "answer_is"),
    ("So the total is 144.The answer is (A).", "A", "answer_is"),
    ("The correct answer is 'D)252'.", "D", "answer_is"),
    ("Action 5: Finish[The answer is B.]", "B", "answer_is"),
    ("Finish[C]", "C", "finish"),
    ("<answer>\nB\n</answer>", "B", "tag"),
    (r"The answer is: $\boxed{\text{C}}$", "C", "boxed"),
    ("It is closest to option A) 0.22.", "A", "last_line"),
    ("Blotters absorb ink.\nTherefore, the answer is blotter (d).", "D", "answer_is"),
    ("**B**\n\nA is too small, and C names an animal.", "B", "first_line"),
    # the last statement wins, whatever its language
    ("Answer: A is tempting.\nIt fails for x = 0, though.\nAnswer: B", "B", "answer_is"),
    ("Answer: A\nOn reflection the second condition fails.\nÌdáhùn: C", "C", "answer_is"),
    # the text of an option
    ("Answer: Democracy", "D", "answer_is"),
    ("The answer is a dog.", "C", "answer_is"),
    ("The answer is 300.", "B", "answer_is"),
    ("300.0", "B", "bare"),
]


@pytest.mark.parametrize(("text", "letter", "rule"), READ)
def test_reads(text: str, letter: str, rule: str) -> None:
    answer = extract(text, "choice", options=OPTIONS)
    assert (answer.value, answer.rule, answer.error) == (letter, rule, None)


REFUSED = [
    ("Answer: Democracy", None, "no_answer"),  # a letter is a word: not D
    ("The answer is a dog.", None, "no_answer"),  # an article
    ("The answer is I don't know.", None, "no_answer"),
    ("The answer is A and B.", None, "contradiction"),
    ("Finish[The answer is A, B.]", None, "contradiction"),
    ("Answer: (C) or (D)", None, "contradiction"),
    ("Respuesta: A y B", None, "contradiction"),
    ("答案是A和B", None, "contradiction"),
    ("The answer is A. The answer is B.", None, "contradiction"),
    ("Either option A or option B.", None, "contradiction"),
    ("The correct answer is not in the given options.", OPTIONS, "no_answer"),
    ("The answer is E.", OPTIONS, "not_an_option"),
    ("301", OPTIONS, "no_answer"),
    ("", OPTIONS, "no_answer"),
]


@pytest.mark.parametrize(("text", "options", "error"), REFUSED)
def test_refuses(text: str, options: dict[str, str] | None, error: str) -> None:
    answer = extract(text, "choice", options=options)
    assert (answer.value, answer.error) == (None, error)


def test_options_as_data_sets_write_them() -> None:
    aqua = ["A)21 minutes", "B)25%", "C)Rs. 1,680", "D)4 1/3 km/h", "E)None of these"]
    values = {"25": "B", "0.25": "B", "1680": "C", "4.333333333333333": "D", "none of these": "E", "21 minutes": "A"}
    for text, letter in values.items():
        assert extract(text, "choice", options=aqua).value == letter


def test_a_value_beside_the_options_needs_a_tolerance() -> None:
    options = {"A": "0.22", "B": "0.26", "C": "0.37"}
    assert extract("0.1144", "choice", options=options).value is None
    assert extract("0.1144", "choice", options=options, tolerance=math.inf).value == "A"
    assert extract("0.2601", "choice", options=options, tolerance=1e-3).value == "B"
    assert extract("0.24", "choice", options=options, tolerance=math.inf).value is None  # as near to A as to B
    for sides in (("0.2601", "B"), ("B", "0.2601")):
        assert grade(*sides, "choice", options=options, tolerance=1e-3).verdict == "correct"


def test_letters_are_compared_as_letters() -> None:
    assert grade("answer: b", "B", "choice").verdict == "correct"
    assert grade("answer: b", "(C)", "choice").verdict == "wrong"
    assert grade("no idea", "nothing", "choice").verdict == "unparsed"


@pytest.mark.parametrize(
    "answer", ["1.5123456789012345e308 million", "-1.5123456789012345e308 million", f"{'9' * 310}.5"]
)
def test_a_number_beyond_the_largest_double_is_near_to_no_option(answer):
    options = {"A": "28", "B": "1e300"}
    assert extract(answer, "choice", options=options, tolerance=math.inf).value is None
    assert extract(answer, "number").error == "malformed"
