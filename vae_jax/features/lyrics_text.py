"""Reduces lyrics to their words: the one place where whatever is not sung is taken out.

The lyrics of real collections come from tags, lyrics sites, karaoke files and chord sheets, with
the markup of each; and where there are none, a word such as "nan" may say so.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from vae_jax.entities import unescape

MAX_CHARACTERS = 50_000  # of one song's lyrics; the rest is not read
MAX_LINE = 1_000  # characters; longer lines are cut, since normalising takes quadratic time


class LyricsError(Exception):
    """A track has no usable lyrics; the message says why, as the reason of its failure."""


def clean(text: str, removed: Counter[str] | None = None) -> str:
    """Reduce lyrics to case-folded words, separated by spaces, one verse line per line.

    Removes section headers ("[Chorus]", "(Refrain 2x)", "Verse 1:"), time stamps, markup, chords,
    the titles and tails that lyrics sites add, punctuation, and control characters, and normalises
    to NFKC. Takes linear time; whatever follows the first `MAX_CHARACTERS` characters is not read.

    Parameters
    ----------
    removed
        Each kind of thing that is removed from this song counts one here.

    Raises
    ------
    LyricsError
        If no words are left, or only some that stand for none, such as "nan".
    """
    given, text = text, text[:MAX_CHARACTERS]
    if not text.strip():
        raise LyricsError("it has no lyrics")
    kinds = set[str]()
    text = _without_markup(text, kinds)
    text = _without_chords(text, kinds)
    if _INVISIBLE.search(text):
        kinds.add("invisible characters")
    pieces = (
        line[start : start + MAX_LINE]
        for line in text.splitlines()
        for start in range(0, len(line), MAX_LINE)
    )
    text = _sub(_INSERTED, "\n", "\n".join(map(_normalize, pieces)), "section marks", kinds)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines:
        lines[0] = _sub(_TITLE, "", lines[0], "texts of lyrics sites", kinds)
        lines[-1] = _sub(_TAIL, "", lines[-1], "texts of lyrics sites", kinds)
    sung = [_words(line) for line in lines if not _CREDITS.match(line)]
    if len(sung) < len(lines):
        kinds.add("texts of lyrics sites")
    text = "\n".join(line for line in sung if not _LABEL.fullmatch(line))
    if any(line and _LABEL.fullmatch(line) for line in sung):
        kinds.add("section marks")
    if not text:
        raise LyricsError("its lyrics hold no words, only headers or punctuation")
    if _MISSING.fullmatch(text.replace("\n", " ")):
        raise LyricsError(f"its lyrics are {given.strip()[:60]!r}, which stands for none")
    if removed is not None:
        removed.update(kinds)
    return text


def has_words(text: str) -> bool:
    """Say whether lyrics hold words, and not just some that stand for none."""
    try:
        return bool(clean(text))
    except LyricsError:
        return False


def without_stamps(text: str) -> str:
    """Remove the time stamps and headers of LRC, SRT and WebVTT; keep the lines and their case."""
    text = _CUE.sub("", text)
    lines = (line.strip() for line in text.splitlines())
    kept = [_STAMP.sub("", line).strip() for line in lines if not _LRC_HEADER.fullmatch(line)]
    stamped = sum(bool(_LEADING.match(line)) for line in kept)
    if stamped > 1 and stamped > 0.5 * sum(map(bool, kept)):
        kept = [_LEADING.sub("", line) for line in kept]
    return "\n".join(kept).strip()


def _without_markup(text: str, kinds: set[str]) -> str:
    """Remove escapes, entities, tags and time stamps, each of which may hide the next."""
    text = _sub(_ESCAPE, _unescaped, text, "literal escapes", kinds)
    if (plain := unescape(text)) != text:
        text = plain
        kinds.add("entities")
    text = _sub(_LINE_TAG, "\n", text, "tags", kinds)
    text = _sub(_TAG, "", text, "tags", kinds)
    plain = without_stamps(text)
    if len("".join(plain.split())) < len("".join(text.split())):
        kinds.add("time stamps")
    return plain


def _without_chords(text: str, kinds: set[str]) -> str:
    """Remove chords between syllables, lines of nothing but chords, and tablature.

    Lines of single letters ("A B C") may be sung, unless other lines are certainly chords.
    """
    text = _sub(_INLINE_CHORD, "", text, "chords", kinds)
    text = _sub(_TABLATURE, "", text, "chords", kinds)
    lines = text.split("\n")
    chords = [line for line in lines if _are_chords(line)]
    if any(_ARE_CERTAIN.search(line.strip()) for line in chords):
        kinds.add("chords")
        lines = [line for line in lines if line not in {*chords}]
    return "\n".join(lines)


def _are_chords(line: str) -> bool:
    tokens = line[:MAX_LINE].replace("|", " ").split()
    return any(map(_CHORD.fullmatch, tokens)) and all(map(_BESIDE_CHORDS.fullmatch, tokens))


def _sub(
    pattern: re.Pattern[str],
    by: str | Callable[[re.Match[str]], str],
    text: str,
    kind: str,
    kinds: set[str],
) -> str:
    """Replace, and note the kind if there was anything."""
    text, count = pattern.subn(by, text)
    if count:
        kinds.add(kind)
    return text


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else "\n"


def _normalize(line: str) -> str:
    """Give equal text equal spelling: no invisible characters, NFKC, no case."""
    invisible: dict[int, str | None] = {
        ord(c): None for c in set(line) if unicodedata.category(c) == "Cf"
    }
    invisible[ord("\u200b")] = " "  # separates words in Thai and Khmer
    line = unicodedata.normalize("NFKC", line.translate(invisible)).casefold()
    return unicodedata.normalize("NFKC", line)


def _words(line: str) -> str:
    """Replace whatever is not a letter, mark or digit, so that only words are left."""
    others = {ord(c): " " for c in set(line) if unicodedata.category(c)[0] not in "LMN"}
    return " ".join(line.translate(others).split())


# What a tool, a database or a lyrics site says where there are no lyrics, as `_words` leaves it.
_MISSING = re.compile(
    r"nan|none|null|nil|n a|na|undefined|unknown|not found|empty|tbd|instrumentale?s?|strumentale"
    r"|(?:this (?:song|track|piece) is (?:an )?)?instrumental(?: (?:song|track|version|music))?"
    r"|(?:the |sorry )?(?:song )?lyrics? (?:(?:are|is|were) )?(?:currently |still |yet )?"
    r"(?:not|un)(?: yet| currently)? ?(?:available|found|known|provided)(?: .{0,80})?"
    r"|(?:there are |sorry )?no (?:song )?lyrics?(?: (?:yet|available|found|here))?"
    r"(?: (?:for|in) (?:this|the) (?:song|track|piece))?(?: (?:yet|available))?"
    r"|lyrics (?:coming soon|unavailable|missing|tba)|(?:unable|failed) to (?:load|find) lyrics"
    r"|we (?:do not|don t) have (?:the |these |any )?lyrics\b.{0,80}"
    r"|lyrics for this song have yet to be\b.{0,120}"
    r"|paroles (?:non|in)(?: )?disponibles?|letras? no disponibles?|letra indisponível"
    r"|kein(?:e)? (?:text|songtext|lyrics)(?: (?:vorhanden|verfügbar))?|testo non disponibile"
    r"|инструментал(?:ьная композиция)?|текст (?:песни )?не найден"
    r"|歌詞なし|インスト(?:ゥルメンタル)?"
    r"|(?:此歌曲为没有填词的)?(?:纯音乐 ?(?:请您?欣赏)?|純音樂 ?(?:請您?欣賞)?)|暂无歌词|暫無歌詞"
)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\r\\n|\\[nrt]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_LINE_TAG = re.compile(r"</?(?:br|p|div|li|tr|h[1-6])(?:\s[^<>]{0,300}|/)?>", re.I)
_TAG = re.compile(r"</?[a-zA-Z](?:[^<>\n]{0,300})>")
_TIME = r"\d{1,3}:\d{2}(?:[:.,]\d{1,3}){0,2}"
_STAMP = re.compile(rf"\[{_TIME}\]|<{_TIME}>")
_LEADING = re.compile(rf"{_TIME}(?: ?- ?{_TIME})?(?:\s+|$)")
_LRC_HEADER = re.compile(
    r"\[(?:al|ar|au|by|id|la|length|lr|offset|re|ti|tool|ve|#):.*\]|WEBVTT", re.I
)
_CUE = re.compile(
    r"^(?:\d{1,6}[ \t]*\r?\n)?(?:\d{1,3}:)?\d{1,2}:\d{2}[.,]\d{1,3} ?--> ?\S{1,20}.{0,80}$", re.M
)
_CHORD = re.compile(
    r"[A-H](?:[#b♯♭]|is|es)?(?:maj|min|mi|m|M|dim|aug|sus|add|ø|°|\+|-)?(?:\d{1,2})?"
    r"(?:(?:sus|add|maj|[#b+-])\d{0,2})?(?:\([^()\s]{1,6}\))?(?:/[A-H][#b]?)?"
)
_BESIDE_CHORDS = re.compile(rf"{_CHORD.pattern}|\(?N\.?C\.?\)?|[x×]\d|\d[x×]|[-%:*/]+")
# More than one chord of which one has a sign, or chords set apart to stand above syllables.
_ARE_CERTAIN = re.compile(r"[A-H][^\sA-H].*\s|\s[A-H][^\sA-H]|\S[ \t]{2,}\S|\|")
_INLINE_CHORD = re.compile(rf"\[{_CHORD.pattern}\]")
_TABLATURE = re.compile(r"^[ \t]*[A-Ge][b#]?[ \t]?[|:][-0-9hpbrxst/\\~|() ]{4,400}$", re.M)
_SECTION = (  # in the languages that lyrics sites label, after case-folding
    r"(?:(?:pre|post|pré|vor)[ -]?)?(?:chorus|verse|bridge|intro|outro|hook|refrain|interlude|"
    r"instrumental|breakdown|coda|skit|solo|strophe|vers|zwischenspiel|brücke|couplet|pont|coro|"
    r"estribillo|estrofa|verso|puente|refrão|ponte|strofa|ritornello|zwrotka|refren|brug|nakarat|"
    r"припев|куплет|проигрыш)"
)
_REPEAT = r"(?:[x×] ?\d{1,2}|\d{1,2} ?[x×]|bis|repeat)"
_LABEL = re.compile(rf"(?:{_SECTION}(?: ?\d{{1,2}})?)?(?: ?{_REPEAT})?")
# Square brackets and curly ones (ChordPro) are never sung; round ones often are (backing voices),
# unless a label is inside.
_INSERTED = re.compile(
    rf"\[[^\[\]\n]{{0,200}}\]|\{{[^{{}}\n]{{0,200}}\}}|\( ?{_LABEL.pattern} ?\)"
    r"|<[\d:.]{1,20}>|https?://\S{1,500}|you might also like(?=\[|\d{0,6}embed|\n|$)"
)
_CREDITS = re.compile(
    r"(?:songwriters?|writers?|written by|composers?) ?:|lyrics (?:licensed|powered|©)|copyright|©"
)
_TITLE = re.compile(
    r"^(?:\d{1,5} ?contributors?.{0,300}?lyrics|(?:songtext|liedtext) (?:zu|von)\b.*"
    r"|lyrics (?:to|of|for)\b.*|paroles (?:de|du|des)\b.*|letras? (?:de|da|do)\b.*"
    r"|testo (?:di|della|del)\b.*|tekst piosenki\b.*|текст песни\b.*)"
)
_TAIL = re.compile(r"\d{0,6} ?embed$")
