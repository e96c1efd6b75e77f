//! The order, digits and dividers of numeric dates: CLDR's `yMd` and `Md`, which ICU4X's data has not; it has those of `dateStyle: "short"`,
//! which are written with other digits in a third of the languages.

use icu::locale::Locale;

/// Patterns with a year and without, and the locales that have them. Locales that are not named have what their language has.
#[rustfmt::skip]
const PATTERNS: &[(&str, &str, &str)] = &[
    ("dd/MM/y", "dd/MM", "\
        br en-AE en-AG en-AI en-AT en-BB en-BM en-BS en-BW en-BZ en-CC en-CK en-CM en-CX en-CY en-CZ en-DE en-DG \
        en-DK en-DM en-EE en-ER en-ES en-FI en-FJ en-FK en-FM en-FR en-GB en-GD en-GE en-GG en-GH en-GI en-GM \
        en-GS en-GY en-HU en-ID en-IL en-IM en-IO en-IT en-JE en-JM en-KE en-KI en-KN en-KY en-LC en-LR en-LS \
        en-LT en-LV en-MG en-MO en-MS en-MT en-MU en-MV en-MW en-MY en-NA en-NF en-NG en-NL en-NO en-NR en-NU \
        en-PG en-PK en-PL en-PN en-PT en-PW en-RO en-RW en-SB en-SC en-SD en-SG en-SH en-SI en-SK en-SL en-SS \
        en-SX en-SZ en-TC en-TK en-TO en-TT en-TV en-TZ en-UA en-UG en-VC en-VG en-VU en-WS en-ZM fr ga it kea pt \
        sc uz vec"),
    ("d/M/y", "d/M", "\
        agq am ast bas bm bn ca ccp cy dje doi dua dyo el en-BE en-IE en-ZW es ewo gd gl gu haw hi id ig km kn \
        ksf kxv ln lo lu mai mgh ml mni mr mua my nl-BE nmg nus pa rn sa scn su sw ta te th to twq ur vi xnr yav \
        yo zh-Hant-HK zh-Hant-MO zh-HK zh-MO"),
    ("y-MM-dd", "MM-dd", "\
        bgc bho bo ce csw en-CA eo fr-CA gv kl ksh ku-IQ kw lmo lrc mzn ne ps raj sah sat sd se shn sn st tn tyv \
        uz-Arab uz-AF zu"),
    ("y-MM-dd", "M/d", "\
        guz ha jmc kam kde ki kln ksb lg luo luy mas mer naq nd nyn rof rwk saq teo tzm vai vun xog"),
    ("M/d/y", "M/d", "blo ceb chr ee en fa-AF fil ks or sbp sd-Deva sd-IN so vai-Latn"),
    ("y-MM-dd", "d/M", "ff fur kab khq mfe mg pa-Arab pa-PK seh ses sg shi sv zgh"),
    ("dd.MM.y", "dd.MM", "az ba en-CH fo hy kk ku ro ru tk tt uk"),
    ("d.M.y", "d.M.", "de dsb fi hsb is lb nb nn no smn"),
    ("d.M.y", "d.M", "be da et he ie ka sq sv-FI"),
    ("y/M/d", "M/d", "ak eu fa ja yue zh"),
    ("dd-MM-y", "dd-MM", "as es-CL ia mi rw wo"),
    ("d/M/y", "M/d", "asa bem bez cgg dav ebu"),
    ("M/d/y", "MM-dd", "gaa ks-Deva mt om xh"),
    ("d/M/y", "MM-dd", "ckb lij nnh vmw"),
    ("d/M/y", "dd/MM", "en-HK en-IN hi-Latn syr"),
    ("d. M. y", "d. M.", "cs sk sl"),
    ("dd/MM/y", "d/M", "en-AU kgp yrl"),
    ("y-d-M", "d-M", "kk-Arab kk-CN ug"),
    ("d\u{200f}/M\u{200f}/y", "d\u{200f}/M", "ar ars"),
    ("d. M. y.", "d. M.", "bs sr"),
    ("dd.MM.y", "MM-dd", "bua szl"),
    ("y-M-d", "M-d", "dz si"),
    ("MM/dd/y", "MM/dd", "es-PA es-PR"),
    ("d-M-y", "d-M", "fy nl"),
    ("d.M.y", "MM-dd", "nds prg"),
    ("dd-MM-y", "MM-dd", "nso qu"),
    ("dd/MM/y", "MM-dd", "oc pms"),
    ("dd.MM.y", "d/M", "se-FI tr"),
    ("y-MM-dd", "dd-MM", "af"),
    ("d.MM.y \u{433}.", "d.MM", "bg"),
    ("dd-MM-y", "M/d", "brx"),
    ("dd.MM.y.", "dd.MM.", "bs-Cyrl"),
    ("y.MM.dd", "MM.dd", "cv"),
    ("y/MM/dd", "M/d", "en-JP"),
    ("d/MM/y", "d/M", "en-NZ"),
    ("y-MM-dd", "dd/MM", "en-SE"),
    ("y/MM/dd", "MM/dd", "en-ZA"),
    ("dd.MM.y", "dd.MM.", "fr-CH"),
    ("y-MM-dd", "d.M.", "gsw"),
    ("dd. MM. y.", "dd. MM.", "hr"),
    ("y. MM. dd.", "M. d.", "hu"),
    ("M.d.y", "d.M", "jgo"),
    ("dd-MM-y", "dd/MM", "jv"),
    ("dd/MM y", "dd/MM", "kkj"),
    ("y. M. d.", "M. d.", "ko"),
    ("d-M-y", "d/M", "kok"),
    ("y-dd-MM", "dd-MM", "ky"),
    ("y-MM-dd", "MM-d", "lt"),
    ("d.MM.y.", "dd.MM.", "lv"),
    ("d.M.y \u{433}.", "d.M", "mk"),
    ("d/M/y", "d-M", "ms"),
    ("y / dd / MM", "MM-dd", "nqo"),
    ("y-MM-dd", "dd.MM", "os"),
    ("d/M/y", "d /M", "pcm"),
    ("d.MM.y", "d.MM", "pl"),
    ("d-M-y", "dd-MM", "rm"),
    ("d.M.y", "dd-MM", "tg"),
    ("M/d/y", "d/M", "ti"),
    ("d-M-y", "MM-dd", "yi"),
    ("y年M月d日", "M-d", "zh-SG"),
];

/// The pattern of a numeric date in a locale, if it is known.
pub(crate) fn pattern(locale: &Locale, has_year: bool) -> Option<&'static str> {
    let id = &locale.id;
    let (language, script) = (id.language.as_str(), id.script.map(|script| format!("-{script}")));
    let region = id.region.map(|region| format!("-{region}")).unwrap_or_default();
    let script = script.unwrap_or_default();
    let names = [
        format!("{language}{script}{region}"),
        format!("{language}{script}"),
        format!("{language}{region}"),
        language.to_owned(),
    ];
    names.iter().find_map(|name| {
        let found = PATTERNS.iter().find(|(_, _, locales)| locales.split(' ').any(|locale| locale == name));
        found.map(|(with_year, without, _)| if has_year { *with_year } else { *without })
    })
}
