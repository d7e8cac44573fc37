"""Names and codes of languages: ISO 639, with what languages call themselves where it is common."""

import functools
import re
import unicodedata

# Code of two letters (three, where there is none), then other codes and names.
TABLE = """
aa aar afar; ab abk abkhazian; ae ave avestan; af afr afrikaans; ak aka akan; am amh amharic;
an arg aragonese; ar ara arabic العربية; as asm assamese; av ava avar; ay aym aymara; az aze
azerbaijani; ba bak bashkir; be bel belarusian; bg bul bulgarian български; bi bis bislama; bm
bam bambara; bn ben bengali; bo bod tib tibetan; br bre breton; bs bos bosnian; ca cat catalan
català; ce che chechen; ch cha chamorro; co cos corsican; cr cre cree; cs ces cze czech
čeština česky; cu chu church_slavic; cv chv chuvash; cy cym wel welsh cymraeg; da dan danish
dansk; de deu ger german deutsch; dv div divehi maldivian; dz dzo dzongkha; ee ewe ewe; el ell
gre greek ελληνικά; en eng english anglais inglés englisch; eo epo esperanto; es spa
spanish español castellano; et est estonian eesti; eu eus baq basque euskara; fa fas per
persian فارسی farsi; ff ful fulah; fi fin finnish suomi; fj fij fijian; fo fao faroese; fr fra
fre french français; fy fry western_frisian; ga gle irish gaeilge; gd gla gaelic; gl glg
galician galego; gn grn guarani; gu guj gujarati; gv glv manx; ha hau hausa; he heb hebrew
עברית iw; hi hin hindi हिन्दी; ho hmo hiri_motu; hr hrv croatian hrvatski; ht hat haitian
haitian_creole; hu hun hungarian magyar; hy hye arm armenian; hz her herero; ia ina
interlingua; id ind indonesian bahasa_indonesia in; ie ile interlingue occidental; ig ibo
igbo; ii iii nuosu; ik ipk inupiaq; io ido ido; is isl ice icelandic íslenska; it ita italian
italiano; iu iku inuktitut; ja jpn japanese 日本語; jv jav javanese; ka kat geo georgian; kg kon
kongo; ki kik kikuyu; kj kua kuanyama; kk kaz kazakh; kl kal kalaallisut greenlandic; km khm
khmer; kn kan kannada; ko kor korean 한국어; kr kau kanuri; ks kas kashmiri; ku kur kurdish; kv
kom komi; kw cor cornish; ky kir kyrgyz kirghiz; la lat latin latina; lb ltz luxembourgish
letzeburgesch; lg lug ganda; li lim limburgish; ln lin lingala; lo lao lao; lt lit lithuanian
lietuvių; lu lub luba-katanga; lv lav latvian latviešu; mg mlg malagasy; mh mah marshallese;
mi mri mao maori; mk mkd mac macedonian; ml mal malayalam; mn mon mongolian; mr mar marathi;
ms msa may malay; mt mlt maltese; my mya bur burmese; na nau nauru; nb nob norwegian_bokmål
bokmål; nd nde north_ndebele; ne nep nepali; ng ndo ndonga; nl nld dut dutch nederlands vlaams
flemish; nn nno norwegian_nynorsk nynorsk; no nor norwegian norsk; nr nbl south_ndebele; nv
nav navajo; ny nya chichewa nyanja; oc oci occitan; oj oji ojibwa; om orm oromo; or ori oriya;
os oss ossetian; pa pan punjabi panjabi; pi pli pali; pl pol polish polski; ps pus pashto
pushto; pt por portuguese português; qu que quechua; rm roh romansh; rn run rundi; ro ron rum
romanian română; ru rus russian русский; rw kin kinyarwanda; sa san sanskrit; sc srd
sardinian; sd snd sindhi; se sme northern_sami; sg sag sango; si sin sinhala sinhalese; sk slk
slo slovak slovenčina; sl slv slovenian slovenščina; sm smo samoan; sn sna shona; so som
somali; sq sqi alb albanian; sr srp serbian српски srpski; ss ssw swati; st sot southern_sotho
sesotho; su sun sundanese; sv swe swedish svenska; sw swa swahili; ta tam tamil; te tel
telugu; tg tgk tajik; th tha thai ไทย; ti tir tigrinya; tk tuk turkmen; tl tgl tagalog; tn tsn
tswana; to ton tongan; tr tur turkish türkçe; ts tso tsonga; tt tat tatar; tw twi twi; ty tah
tahitian; ug uig uyghur uighur; uk ukr ukrainian українська; ur urd urdu; uz uzb uzbek; ve ven
venda; vi vie vietnamese tiếng_việt; vo vol volapük; wa wln walloon; wo wol wolof; xh xho
xhosa; yi yid yiddish ji; yo yor yoruba; za zha zhuang; zh zho chi chinese 中文 汉语 漢語 mandarin
cmn 普通话; zu zul zulu; yue cantonese; haw hawaiian; fil filipino; gsw swiss_german; nds
low_german; sco scots; grc ancient_greek; ast asturian; scn sicilian; nap neapolitan; rom
romany romani
"""


def code(text: str) -> str | None:
    """Return the code of a language given by a code or a name ("eng", "en-US", "English")."""
    folded = "_".join(unicodedata.normalize("NFKC", text).casefold().split())
    if code := _codes().get(folded):
        return code
    region = re.fullmatch(r"([a-z]{2,3})[-_][a-z0-9_-]{2,12}", folded)
    return _codes().get(region[1]) if region else None


@functools.cache
def _codes() -> dict[str, str]:
    rows = [" ".join(row.split()).split() for row in TABLE.split(";")]
    return {name: row[0] for row in rows for name in row}
