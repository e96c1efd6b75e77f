//! Web Crypto with keys: each line is an expression and the JSON of its value, which is that of Node.js as well, where `common/keys.json`
//! comes from.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod common;

/// Evaluates expressions as `common` does, with the keys and what encodes.
async fn check(expected: &[(&str, &str)]) {
    const PREAMBLE: &str = "const { subtle } = crypto; const data = new TextEncoder().encode('signed');
        const from64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)); const to64 = (b) => btoa(String.fromCharCode(...new Uint8Array(b)));";
    common::check_after(&format!("{PREAMBLE} const keys = {};", include_str!("common/keys.json")), expected).await;
}

#[tokio::test]
async fn keys_of_files_and_jwks_sign_and_verify_what_others_sign() {
    check(&[
        (r#"(async () => { const all = []; for (const [name, k] of Object.entries(keys)) { const all2 = []; for (const [format, value, usage] of [['jwk', k.jwk, 'sign'], ['pkcs8', from64(k.pkcs8), 'sign'], ['spki', from64(k.spki), 'verify']]) { const key = await subtle.importKey(format, value, k.import, true, [usage]); all2.push(usage === 'sign' ? (await subtle.sign(k.sign, key, data)).byteLength : await subtle.verify(k.sign, key, from64(k.signature), data)) } all.push([name, ...all2]) } return all })()"#, r#"[["rsa",256,256,true],["pss",256,256,true],["p256",64,64,true],["p384",96,96,true],["ed",64,64,true]]"#),
        (r#"(async () => { const all = []; for (const k of Object.values(keys)) { const mine = await subtle.importKey('pkcs8', from64(k.pkcs8), k.import, true, ['sign']); const theirs = await subtle.importKey('spki', from64(k.spki), k.import, true, ['verify']); const signature = await subtle.sign(k.sign, mine, data); all.push([await subtle.verify(k.sign, theirs, signature, data), await subtle.verify(k.sign, theirs, signature, bytes(1)), to64(await subtle.exportKey('pkcs8', mine)) === k.pkcs8, to64(await subtle.exportKey('spki', theirs)) === k.spki]) } return all })()"#, r#"[[true,false,true,true],[true,false,true,true],[true,false,true,true],[true,false,true,true],[true,false,true,true]]"#),
        (r#"(async () => { const all = []; for (const k of Object.values(keys)) { const mine = await subtle.importKey('jwk', k.jwk, k.import, true, ['sign']); const { key_ops, ext, ...jwk } = await subtle.exportKey('jwk', mine); all.push([key_ops, ext, Object.keys(k.jwk).filter((name) => name !== 'alg' && jwk[name] !== k.jwk[name]), mine.type, mine.algorithm.modulusLength, mine.algorithm.namedCurve, mine.algorithm.hash?.name]) } return all })()"#, r#"[[["sign"],true,[],"private",2048,null,"SHA-256"],[["sign"],true,[],"private",2048,null,"SHA-512"],[["sign"],true,[],"private",null,"P-256",null],[["sign"],true,[],"private",null,"P-384",null],[["sign"],true,[],"private",null,null,null]]"#),
        (r#"(async () => { const { rsa, ed } = keys; const sign = async (k) => to64(await subtle.sign(k.sign, await subtle.importKey('jwk', k.jwk, k.import, false, ['sign']), data)); return [await sign(rsa) === rsa.signature, await sign(ed) === ed.signature] })()"#, r#"[true,true]"#),
        (r#"(async () => { const all = []; for (const name of ['p256', 'p384', 'ed']) { const k = keys[name]; const key = await subtle.importKey('spki', from64(k.spki), k.import, true, ['verify']); const raw = await subtle.exportKey('raw', key); const again = await subtle.importKey('raw', raw, k.import, true, ['verify']); all.push([raw.byteLength, await subtle.verify(k.sign, again, from64(k.signature), data)]) } return all })()"#, r#"[[65,true],[97,true],[32,true]]"#),
        (r#"(async () => { const all = []; for (const [algorithm, sign] of [[{ name: 'ECDSA', namedCurve: 'P-256' }, { name: 'ECDSA', hash: 'SHA-256' }], [{ name: 'ECDSA', namedCurve: 'P-384' }, { name: 'ECDSA', hash: { name: 'SHA-384' } }], [{ name: 'Ed25519' }, 'Ed25519']]) { const { privateKey, publicKey } = await subtle.generateKey(algorithm, true, ['sign', 'verify']); const jwk = await subtle.exportKey('jwk', publicKey); all.push([privateKey.usages, publicKey.usages, publicKey.extractable, await subtle.verify(sign, publicKey, await subtle.sign(sign, privateKey, data), data), jwk.d === undefined]) } return all })()"#, r#"[[["sign"],["verify"],true,true,true],[["sign"],["verify"],true,true,true],[["sign"],["verify"],true,true,true]]"#),
    ])
    .await;
}

#[tokio::test]
async fn what_is_encrypted_is_opened_by_the_same_key_and_nothing_else() {
    check(&[
        (r#"(async () => { const key = await subtle.importKey('raw', new Uint8Array(32).fill(1), 'AES-GCM', true, ['encrypt', 'decrypt']); const iv = new Uint8Array(12).fill(2); const sealed = await subtle.encrypt({ name: 'AES-GCM', iv, additionalData: bytes(9) }, key, data); const open = async (more) => new TextDecoder().decode(await subtle.decrypt({ name: 'AES-GCM', iv, additionalData: more }, key, sealed)); return [hex(sealed), await open(bytes(9)), await name(() => open(bytes(8))), (await subtle.exportKey('jwk', key)).alg, key.algorithm] })()"#, r#"["74bfae272f33ee61fe371019636da32318b5157ff89c","signed","OperationError","A256GCM",{"name":"AES-GCM","length":256}]"#),
        (r#"(async () => { const key = await subtle.generateKey({ name: 'AES-GCM', length: 128 }, true, ['encrypt']); return [(await subtle.exportKey('raw', key)).byteLength, await name(() => subtle.decrypt({ name: 'AES-GCM', iv: new Uint8Array(12) }, key, data))] })()"#, r#"[16,"InvalidAccessError"]"#),
    ])
    .await;
}

#[tokio::test]
async fn keys_are_derived_as_the_standards_vectors_say() {
    check(&[
        (r#"(async () => { const key = await subtle.importKey('raw', new TextEncoder().encode('password'), 'PBKDF2', false, ['deriveBits', 'deriveKey']); const how = { name: 'PBKDF2', hash: 'SHA-256', salt: new TextEncoder().encode('salt'), iterations: 4096 }; const derived = await subtle.deriveKey(how, key, { name: 'AES-GCM', length: 256 }, true, ['encrypt']); return [hex(await subtle.deriveBits(how, key, 256)), hex(await subtle.exportKey('raw', derived)), hex(await subtle.deriveBits({ ...how, hash: 'SHA-1', iterations: 2 }, key, 160))] })()"#, r#"["c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a","c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a","ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"]"#),
        (r#"(async () => { const key = await subtle.importKey('raw', new Uint8Array(22).fill(0x0b), 'HKDF', false, ['deriveBits', 'deriveKey']); const how = { name: 'HKDF', hash: 'SHA-256', salt: bytes(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), info: bytes(0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9) }; const mac = await subtle.deriveKey(how, key, { name: 'HMAC', hash: 'SHA-256' }, true, ['sign']); return [hex(await subtle.deriveBits(how, key, 336)), mac.algorithm.length] })()"#, r#"["3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",512]"#),
    ])
    .await;
}

#[tokio::test]
async fn a_key_of_another_kind_or_for_another_use_is_an_error_of_its_own() {
    check(&[
        (r#"(async () => { const { rsa, p256 } = keys; const all = []; const tried = (f) => name(f).then((name) => all.push(name)); await tried(() => subtle.importKey('spki', from64(rsa.spki), p256.import, true, ['verify'])); await tried(() => subtle.importKey('pkcs8', bytes(48, 3, 2, 1, 0), rsa.import, true, ['sign'])); await tried(() => subtle.importKey('spki', from64(rsa.spki), rsa.import, true, ['sign'])); await tried(() => subtle.importKey('jwk', { ...p256.jwk, x: 'AA' }, p256.import, true, ['sign'])); await tried(() => subtle.importKey('jwk', null, p256.import, true, ['sign'])); await tried(() => subtle.importKey('raw', new Uint8Array(5), 'AES-GCM', true, ['encrypt'])); await tried(() => subtle.importKey('raw', data, 'PBKDF2', true, ['deriveBits'])); await tried(() => subtle.importKey('raw', data, 'ROT13', true, ['deriveBits'])); return all })()"#, r#"["DataError","DataError","SyntaxError","DataError","DataError","DataError","SyntaxError","NotSupportedError"]"#),
        (r#"(async () => { const { rsa, p256 } = keys; const key = await subtle.importKey('spki', from64(rsa.spki), rsa.import, false, ['verify']); return [await name(() => subtle.sign(rsa.sign, key, data)), await name(() => subtle.exportKey('spki', key)), await name(() => subtle.verify(p256.sign, key, data, data)), await name(() => subtle.verify(rsa.sign, {}, data, data)), await subtle.verify(rsa.sign, key, bytes(1, 2), data)] })()"#, r#"["InvalidAccessError","InvalidAccessError","InvalidAccessError","TypeError",false]"#),
        ("(async () => { const key = await subtle.importKey('raw', data, 'PBKDF2', false, ['deriveBits']); return [await subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-512', salt: data, iterations: 1e9 }, key, 512).catch((e) => [e.name, e.message]), await name(() => subtle.deriveBits({ name: 'PBKDF2', hash: 'SHA-512', salt: data, iterations: 1 }, key, 2 ** 30))] })()",
            r#"[["OperationError","PBKDF2 has at most 2000000 rounds here, counted for each 20 bytes that are derived"],"OperationError"]"#),
    ])
    .await;
}
