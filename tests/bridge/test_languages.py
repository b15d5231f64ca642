"""Texts tell their language; whoever would read them with a model of another one is told so."""

import pytest

from bridge.languages import EXAMPLE, LANGUAGES, MULTILINGUAL, language_of, languages_of, unread_language

TEXTS = {
    "de": "Die Schuhe sind aus Gummi und halten das Wasser ab, wenn es auf der Wiese nass ist.",
    "en": "The shoes are made of rubber and keep the water out when it is wet in the meadow.",
    "es": "Los zapatos son de goma y no dejan pasar el agua cuando la hierba del prado está mojada.",
    "fr": "Les chaussures sont en caoutchouc et ne laissent pas entrer l'eau quand le pré est mouillé.",
    "nl": "De schoenen zijn van rubber en houden het water tegen als het gras in de wei nat is.",
    "pt": "Os sapatos são de borracha e não deixam entrar água quando a relva do campo está molhada.",
    "sv": "Skorna är av gummi och det gör att vattnet inte kommer in när gräset på ängen är vått.",
    "ru": "Туфли сделаны из резины и не пропускают воду, если трава на лугу мокрая, как это бывает.",
    "uk": "Черевики зроблено з гуми, і вони не пропускають воду, якщо трава мокра, як це буває.",
    "el": "Τα παπούτσια είναι από καουτσούκ.",
    "ja": "靴はゴムでできています。",
    "ko": "신발은 고무로 만들어졌습니다.",
    "th": "รองเท้าทำจากยาง",
    "zh": "鞋子是橡胶做的，草地湿的时候不进水。",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_text_tells_its_language(code: str) -> None:
    assert language_of(TEXTS[code]) == code
    assert code in LANGUAGES


@pytest.mark.parametrize("text", ["", "12.50 €", "SKU-4711 XK200 ACME", "rubber boots"], ids=str)
def test_a_text_without_common_words_has_no_known_language(text: str) -> None:
    assert language_of(text) is None


def test_shares_are_of_texts_whose_language_is_known() -> None:
    assert languages_of([TEXTS["de"], TEXTS["de"], TEXTS["de"], TEXTS["en"], "4711"]) == {"de": 0.75, "en": 0.25}
    assert languages_of([]) == {}


@pytest.mark.parametrize(
    ("codes", "read", "is_told"),
    [
        (["de", "de", "en"], ["en"], True),
        (["de", "en", "en"], ["en"], False),
        (["de"], ["en", "de"], False),
        (["de"], [MULTILINGUAL], False),
        (["de"], [], False),
        ([], ["en"], False),
    ],
    ids=["mostly another", "mostly its own", "one of several", "all of them", "nobody says", "no texts"],
)
def test_a_language_that_a_model_does_not_read_is_told(codes: list[str], read: list[str], is_told: bool) -> None:
    told = unread_language([TEXTS[code] for code in codes], read, "embed-base")
    assert (told is not None) == is_told
    if told is not None:
        assert told.startswith(
            "texts look German (67% of those whose language is known), and embed-base reads English: "
        )
        assert EXAMPLE in told
