//! Language tags: their canonical form, what is in them, and whether there is data for them.

use icu::locale::{Locale, LocaleCanonicalizer, LocaleExpander, TransformResult};
use serde_json::{Map, Value, json};

/// Longest language tag, in bytes.
const MAX_TAG_BYTES: usize = 255;

/// The languages that CLDR has data for.
const LANGUAGES: &str = "\
af agq ak am ar ars as asa ast az ba bas be bem bez bg bgc bho blo bm bn bo br brx bs bua ca ccp ce ceb cgg chr ckb cs \
csw cv cy da dav de dje doi dsb dua dyo dz ebu ee el en eo es et eu ewo fa ff fi fil fo fr fur fy ga gaa gd gl gsw gu \
guz gv ha haw he hi hr hsb hu hy ia id ie ig ii is it ja jgo jmc jv ka kab kam kde kea kgp khq ki kk kkj kl kln km kn \
ko kok ks ksb ksf ksh ku kw kxv ky lb lg lij lmo ln lo lrc lt lu luo luy lv mai mas mer mfe mg mgh mi mk ml mn mni mr \
ms mt mua my mzn naq nb nd nds ne nl nmg nn nnh no nqo nso nus nyn oc om or os pa pcm pl pms prg ps pt qu raj rm rn ro \
rof ru rw rwk sa sah saq sat sbp sc scn sd se seh ses sg shi shn si sk sl smn sn so sq sr st su sv sw syr szl ta te \
teo tg th ti tk tn to tok tr tt twq tyv tzm ug uk ur uz vai vec vi vmw vun wae wo xh xnr xog yav yi yo yrl yue zgh zh \
zu";

/// A tag as a locale; nothing if it is none.
pub(crate) fn parse(tag: &str) -> Option<Locale> {
    if tag.len() > MAX_TAG_BYTES || tag.contains('_') {
        return None;
    }
    Locale::try_from_str(tag).ok()
}

/// A tag's canonical form and its pieces, in JSON.
pub(crate) fn describe(tag: &str) -> Option<String> {
    let mut locale = parse(tag)?;
    LocaleCanonicalizer::new_extended().canonicalize(&mut locale);
    let keywords: Map<String, Value> = locale
        .extensions
        .unicode
        .keywords
        .iter()
        .map(|(key, value)| (key.to_string(), Value::String(value.to_string())))
        .collect();
    let id = &locale.id;
    let description = json!({
        "tag": locale.to_string(),
        "base": id.to_string(),
        "language": id.language.to_string(),
        "script": id.script.map(|script| script.to_string()),
        "region": id.region.map(|region| region.to_string()),
        "keywords": keywords,
        "available": LANGUAGES.split(' ').any(|language| language == id.language.as_str()),
    });
    Some(description.to_string())
}

/// The tag with the script and region that its language is likely to have, or without them.
pub(crate) fn likely(way: &str, tag: &str) -> Option<String> {
    let mut locale = parse(tag)?;
    let expander = LocaleExpander::new_extended();
    let (TransformResult::Modified | TransformResult::Unmodified) = match way {
        "maximize" => expander.maximize(&mut locale.id),
        _ => expander.minimize(&mut locale.id),
    };
    Some(locale.to_string())
}
