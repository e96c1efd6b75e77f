//! `Intl`: what it writes is what another engine writes, what is wrong is refused as the standard says, and nothing makes it panic.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a helper that fails fails its test")]

mod common;

use std::sync::LazyLock;

use common::{call, failure, fixture, reply, started};
use nex_engine::{CallError, Function as _};
use nex_engine_js::{Isolate, JsFunction, STACK_BYTES, prepare};
use proptest::prelude::*;
use tokio::runtime::Runtime;

/// Expressions, and what Node says to each.
const CASES: &str = include_str!("intl.txt");

/// Evaluates the expressions in one function, each in a call of its own; gives those that have another value.
async fn differing(cases: &[(&str, &str)]) -> Vec<String> {
    let expressions: Vec<_> = cases.iter().map(|(expression, _)| format!("() => ({expression})")).collect();
    let source = format!(
        "const at = Date.UTC(2024, 2, 5, 14, 7, 8, 123);
         const clock = (t, timeZone) => new Intl.DateTimeFormat('en-GB', {{ timeZone, dateStyle: 'short', timeStyle: 'long' }}).format(new Date(t));
         const name = (f) => {{ try {{ return f() }} catch (e) {{ return e.name }} }};
         const cases = [{}]; (s, p) => cases[Number(new TextDecoder().decode(p))]()",
        expressions.join(",\n")
    );
    let (function, _fixture) = started(&source).await;
    let mut differing = Vec::new();
    for (number, (expression, expected)) in cases.iter().enumerate() {
        let reply = function.invoke(call(number.to_string())).await.map(|reply| reply.payload);
        let found = reply.as_ref().ok().and_then(|payload| serde_json::from_slice::<serde_json::Value>(payload).ok());
        if found.is_none() || found != serde_json::from_str(expected).ok() {
            differing.push(format!("{expression}\n  expected {expected}\n  found {reply:?}"));
        }
    }
    differing
}

#[tokio::test]
async fn what_it_writes_is_what_node_writes() {
    let lines: Vec<_> = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '/'])).collect();
    let (pairs, rest) = lines.as_chunks::<2>();
    let cases: Vec<_> = pairs.iter().map(|[expression, value]| (*expression, value.strip_prefix("= ").unwrap())).collect();
    assert!(rest.is_empty() && cases.len() > 150, "each expression has a value");
    let differing = differing(&cases).await;
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Where it writes something else than Node, as `docs/javascript.md` says.
#[tokio::test]
async fn what_it_writes_otherwise_is_written_down() {
    let cases = [
        ("new Intl.DateTimeFormat('en', { hour: 'numeric', dayPeriod: 'long' }).format(at)", r#""2 PM""#),
        ("new Intl.DateTimeFormat('en', { hour: 'numeric', hourCycle: 'h24' }).resolvedOptions().hourCycle", r#""h23""#),
        ("new Intl.DateTimeFormat('en', { year: 'numeric', day: 'numeric' }).format(at)", r#""5, 2024""#),
        ("new Intl.NumberFormat('en').formatRange(1, 2)", r#""1 – 2""#),
        ("['i'.toLocaleUpperCase('tr'), new Intl.Collator('de', { usage: 'search' }).compare('ae', 'ä')]", r#"["I",1]"#),
        ("new Intl.DateTimeFormat('th').resolvedOptions().calendar", r#""gregory""#),
        ("new Intl.DateTimeFormat('en', { timeZone: 'Asia/Kolkata' }).resolvedOptions().timeZone", r#""Asia/Kolkata""#),
        ("new Intl.DateTimeFormat('en', { hour: 'numeric', minute: 'numeric', timeZone: '-0330' }).format(at)", r#""10:37 AM""#),
        (
            "new Intl.DateTimeFormat('en', { dateStyle: 'long' }).formatRange(at, at + 864e5)",
            r#""March 5, 2024 – March 6, 2024""#,
        ),
        (
            "new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR', currencyDisplay: 'name' }).format(1)",
            r#""EUR\u00a01.00""#,
        ),
        ("name(() => new Intl.NumberFormat('en', { style: 'unit', unit: 'liter' }))", r#""RangeError""#),
        ("name(() => Intl.supportedValuesOf('currency'))", r#""RangeError""#),
        (
            "[Intl.supportedValuesOf('timeZone').includes('Europe/Berlin'), Intl.supportedValuesOf('calendar')]",
            r#"[true,["gregory"]]"#,
        ),
        ("[typeof Intl.DisplayNames, typeof Intl.DurationFormat]", r#"["undefined","undefined"]"#),
        ("new Intl.RelativeTimeFormat('en', { numeric: 'auto' }).format(-0, 'day')", r#""today""#),
    ];
    let differing = differing(&cases).await;
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_the_kind_of_error_that_the_standard_says() {
    let range = [
        "Intl.getCanonicalLocales('en_US')",
        "Intl.getCanonicalLocales('x'.repeat(300))",
        "Intl.getCanonicalLocales({ length: 2000, 0: 'de' })",
        "new Intl.DateTimeFormat('en', { timeZone: 'Mars/Phobos' })",
        "new Intl.DateTimeFormat('en', { timeZone: 'x'.repeat(1e6) })",
        "new Intl.DateTimeFormat('en', { timeZone: '+24:00' })",
        "new Intl.DateTimeFormat('en', { month: 'wide' })",
        "new Intl.DateTimeFormat('en', { fractionalSecondDigits: 4 })",
        "new Intl.DateTimeFormat('en', { numberingSystem: 'ä' })",
        "new Intl.DateTimeFormat('en').format(NaN)",
        "new Intl.DateTimeFormat('en').format(8.64e15 + 1)",
        "new Intl.NumberFormat('en', { style: 'currency', currency: 'EURO' })",
        "new Intl.NumberFormat('en', { maximumFractionDigits: 101 })",
        "new Intl.NumberFormat('en', { minimumFractionDigits: 3, maximumFractionDigits: 2 })",
        "new Intl.NumberFormat('en', { roundingIncrement: 3 })",
        "new Intl.NumberFormat('en').format(10n ** 5000n)",
        "new Intl.PluralRules('en', { type: 'x' })",
        "new Intl.Collator('en', { sensitivity: 'x' })",
        "new Intl.Segmenter('en', { granularity: 'line' })",
        "[...new Intl.Segmenter('en', { granularity: 'word' }).segment('x'.repeat(3e5))]",
        "new Intl.ListFormat('en').format(Array(20000).fill('a'))",
        "new Intl.RelativeTimeFormat('en').format(1, 'x')",
        "new Intl.RelativeTimeFormat('en').format(Infinity, 'day')",
        "new Intl.Locale('en', { region: 'xxxx' })",
        "'a'.localeCompare('b', 'x')",
        "(1).toLocaleString('x')",
        "new Date(0).toLocaleString('de', { timeZone: 'x' })",
    ];
    let kind = [
        "Intl.getCanonicalLocales([1])",
        "Intl.getCanonicalLocales(null)",
        "new Intl.DateTimeFormat('en', null)",
        "new Intl.DateTimeFormat('en', { dateStyle: 'full', year: 'numeric' })",
        "new Date().toLocaleDateString('en', { timeStyle: 'full' })",
        "new Intl.NumberFormat('en', { style: 'currency' })",
        "new Intl.NumberFormat('en').format(Symbol())",
        "Intl.PluralRules('en')",
        "Intl.Segmenter('en')",
        "new Intl.Segmenter('en', 1)",
        "new Intl.ListFormat('en').format([1])",
        "new Intl.Locale()",
        "Intl.DateTimeFormat.prototype.format.call({})",
        "Date.prototype.toLocaleString.call({})",
        "Number.prototype.toLocaleString.call('1')",
        "String.prototype.localeCompare.call(null, 'a')",
    ];
    let named = |expression: &&str| format!("name(() => {{ {expression}; return 'nothing thrown' }})");
    let cases: Vec<_> = [(&range[..], r#""RangeError""#), (&kind[..], r#""TypeError""#)]
        .into_iter()
        .flat_map(|(all, error)| all.iter().map(move |expression| (named(expression), error)))
        .collect();
    let cases: Vec<_> = cases.iter().map(|(expression, error)| (expression.as_str(), *error)).collect();
    let differing = differing(&cases).await;
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[tokio::test]
async fn a_long_text_is_divided_as_a_short_one_is() {
    let source = "() => { const all = 'Ein Wort, 3.5 zwei. '.repeat(20000); const found = [0, 0]; let text = '';
        for (const { segment, isWordLike } of new Intl.Segmenter('de', { granularity: 'word' }).segment(all)) { found[Number(isWordLike)]++; text += segment }
        return [...found, text === all] }";
    assert_eq!(reply(source).await.as_deref(), Ok("[120000,80000,true]"));
}

#[tokio::test]
async fn dividing_a_long_text_can_be_interrupted() {
    let mut fixture =
        fixture("() => [...new Intl.Segmenter('th', { granularity: 'word' }).segment('สวัสดีชาวโลก'.repeat(1e6))].length");
    fixture.launch.limits.cpu_time = Some(std::time::Duration::from_millis(100));
    fixture.launch.limits.memory_bytes = 256 << 20;
    let function = nex_engine_js::start(fixture.launch.clone(), prepare()).await.unwrap();
    assert!(matches!(function.invoke(call("")).await, Err(CallError::CpuTime(_) | CallError::Timeout(_))));
}

#[tokio::test]
async fn a_script_may_replace_it_and_no_call_sees_what_another_did() {
    let source = "(s, p) => { const before = [typeof Intl.Collator, typeof Intl.own]; Intl.own = 1; if (p.length === 0) globalThis.Intl = {}; return before }";
    let (function, _fixture) = started(source).await;
    for payload in ["", "x", ""] {
        let reply = function.invoke(call(payload)).await.unwrap();
        assert_eq!(reply.payload, r#"["function","undefined"]"#);
    }
    assert!(failure("Intl = undefined; () => Intl.Collator").await.contains("TypeError"));
}

#[test]
fn formatters_of_one_function_are_not_those_of_another() {
    // On one thread, where ready ones are kept.
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    let calls = move || {
        let of = |locale: &str| {
            let source = format!("() => new Date(0).toLocaleDateString('{locale}', {{ month: 'long' }})");
            Isolate::load(fixture(source).launch, prepare(), handle.clone()).unwrap()
        };
        let mut isolates: Vec<_> = ["de", "fr", "en"].map(of).into_iter().collect();
        for _ in 0..3 {
            for (isolate, expected) in isolates.iter_mut().zip([r#""Januar""#, r#""janvier""#, r#""January""#]) {
                assert_eq!(isolate.call(&call("")).unwrap().payload, expected);
                isolate.restore().unwrap();
            }
        }
    };
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(calls).unwrap().join().unwrap();
}

/// Does what a payload says, and tells how it ended.
const ANYTHING: &str = "(s, p) => {
    const [kind, locale, options, values] = JSON.parse(new TextDecoder().decode(p));
    const use = {
        DateTimeFormat: (one, a, b) => [one.format(a), one.formatToParts(b), one.formatRange(a, b)], NumberFormat: (one, a, b) => [one.format(a), one.formatToParts(b)],
        PluralRules: (one, a) => one.select(a), Collator: (one, a, b) => one.compare(a, b), ListFormat: (one, a, b) => one.format([String(a), String(b)]),
        RelativeTimeFormat: (one, a, b) => one.format(a, b), Segmenter: (one, a, b) => [...one.segment(a)], Locale: (one) => [String(one), String(one.maximize()), String(one.minimize())],
    };
    try {
        const one = new Intl[kind](locale, options);
        return kind === 'Locale' ? [use[kind](one), 'done'].at(1) : [one.resolvedOptions(), use[kind](one, ...values), 'done'].at(2);
    } catch (error) { return error instanceof RangeError || error instanceof TypeError ? 'refused' : String(error) } }";

static FUNCTION: LazyLock<(Runtime, JsFunction)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let (function, _fixture) = runtime.block_on(started(ANYTHING));
    (runtime, function)
});

fn locale() -> impl Strategy<Value = String> {
    let some = ["en-US", "de", "ar", "hi", "ja", "th", "zh-Hant", "he", "fa", "sr-Latn", "und", "mn", "sw-KE", "x-y", ""];
    let extensions = [
        "",
        "-u-nu-arab",
        "-u-hc-h11",
        "-u-co-phonebk-kn",
        "-u-ca-buddhist",
        "-u-nu-hanidec-hc-h24",
        "-u-kf-upper",
        "-t-de-m0-x",
    ];
    let known = (prop::sample::select(some.to_vec()), prop::sample::select(extensions.to_vec()))
        .prop_map(|(one, more)| format!("{one}{more}"));
    prop_oneof![4 => known, 2 => "[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?(-[a-z0-9]{5,8})?(-u(-[a-z]{2}(-[a-z0-9]{3,8})?){1,3})?", 1 => ".{0,40}"]
}

/// Names of options, and values that one of them has.
const OPTIONS: [(&str, &str); 19] = [
    ("weekday era month dayPeriod unitDisplay style", "narrow short long"),
    ("year month day hour minute second", "numeric 2-digit"),
    ("fractionalSecondDigits", "1 2 3"),
    ("timeZoneName", "short long shortOffset longOffset shortGeneric longGeneric"),
    ("hourCycle", "h11 h12 h23 h24"),
    ("timeZone", "Europe/Berlin Africa/Monrovia Asia/Kathmandu utc Etc/GMT+5 EST +05:30 -23:59"),
    ("dateStyle timeStyle", "full long medium short"),
    ("style", "decimal percent currency unit"),
    ("currency", "EUR JPY KWD xxx abc"),
    ("currencyDisplay currencySign", "code narrowSymbol name accounting standard symbol"),
    ("unit", "year day hour millisecond"),
    ("notation compactDisplay", "compact scientific engineering standard short long"),
    ("signDisplay useGrouping", "auto never always exceptZero negative min2"),
    ("hour12 useGrouping numeric ignorePunctuation", "true false"),
    (
        "minimumIntegerDigits minimumFractionDigits maximumFractionDigits minimumSignificantDigits maximumSignificantDigits",
        "1 2 3 21 100",
    ),
    (
        "roundingMode roundingPriority trailingZeroDisplay",
        "floor halfEven expand auto morePrecision lessPrecision stripIfInteger",
    ),
    ("roundingIncrement", "1 2 5 25 50 5000"),
    ("numberingSystem collation caseFirst numeric", "thai arab hanidec adlm phonebk upper always auto"),
    ("sensitivity granularity type", "base case accent word sentence ordinal disjunction unit"),
];

fn options() -> impl Strategy<Value = String> {
    let words = |all: &'static str| prop::sample::select(all.split(' ').collect::<Vec<_>>());
    let pair = (0..OPTIONS.len(), 0..OPTIONS.len(), 0..10).prop_flat_map(move |(one, other, odds)| {
        let values = if odds == 0 { other } else { one };
        (words(OPTIONS[one].0), words(OPTIONS[values].1))
    });
    let written = |(name, value): (&str, &str)| {
        let value =
            if value.parse::<bool>().is_ok() || value.parse::<u16>().is_ok() { value.to_owned() } else { format!("\"{value}\"") };
        format!("\"{name}\":{value}")
    };
    prop::collection::vec(pair.prop_map(written), 0..6).prop_map(|pairs| format!("{{{}}}", pairs.join(",")))
}

fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![any::<f64>(), -9e15..9e15f64, (-3000i32..3000).prop_map(f64::from)]
        .prop_map(|n| serde_json::json!(n).to_string());
    let units = ["day", "seconds", "quarter", "years"].map(|unit| format!("\"{unit}\""));
    prop_oneof![8 => number, 1 => prop::sample::select(units.to_vec()), 2 => ".{0,60}".prop_map(|text| serde_json::json!(text).to_string())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_is_answered_or_refused(
        kind in prop::sample::select(vec!["DateTimeFormat", "NumberFormat", "PluralRules", "Collator", "ListFormat", "RelativeTimeFormat", "Segmenter", "Locale"]),
        locale in locale(), options in options(), one in value(), other in value(),
    ) {
        let payload = format!("[\"{kind}\",{},{options},[{one},{other}]]", serde_json::json!(locale));
        let (runtime, function) = &*FUNCTION;
        let reply = runtime.block_on(function.invoke(call(payload.clone()))).map(|reply| String::from_utf8_lossy(&reply.payload).into_owned());
        prop_assert!(matches!(reply.as_deref(), Ok(r#""done""# | r#""refused""#)), "{payload}: {reply:?}");
    }
}
