import { CompactEncrypt, SignJWT, base64url, calculateJwkThumbprint, compactDecrypt, createLocalJWKSet, decodeJwt, errors, exportJWK, generateKeyPair, importPKCS8, jwtVerify } from "jose";

// Of nobody.
const PKCS8 = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDVJQ9Hd77NubZXpkW4kDMc6LNngwS3fJI9V5fo0fVqBOQtg264PGw8YbkHVL+aQtcDXZ/2cNmMtmgXZHtEO8k5ggMCUoOyI8VH9a8LNYYtYqRKzxPcXAE/VceEbY53/cmYgP4Ee/HPfoUrr5TjID+zcoF24iRYTfB6PTU7pzY1o7d/gPffwjojxsKaQ/+ZJZT0ubjQmrDMuXLxozkGx5Fd+kuvyzdHzCRGpgsVqAxIxuWU7nM2gGvGUBsXW9ae0H34BwsdWqLZ10GibxWdv6vjzE94HlybM+CXDMlET+0OfrnYBsBicjGvama2P9ZwwJxKlsWbNqA/LMA6+Xey9SQbAgMBAAECggEAU9bEeE2jOUPD9B0cjpj16fikXOJ9z/jJgyR5xeQUXvP2lup8ei6WOngL8lTFGxYQgivpGGRSRlWXgyAMlo3XvG2l5ltznvYQCxqaFFQk56RF0IE8pDBycym4FaCMailjC0At6rCgMIhpNIJXk7FjLSAsyYjxV+SsY0DBOCoxGg6If6bI7sFCCsfx2lAF9oImi22D1VSv5GjGmF9bNsJAanGPTzf6LnKShAY/8nXD0zJ1x5diQ8YP9iCvZkKLVGEloNYMGHcOgQ0/b+x5+a7Cgg15AjFcAeKzdHxt0obi4k0ITGKwldMwCQFqppNoGyFyvf27jxXhvO9haWcb6A3WJQKBgQDsPSnCSdrAvZKlyyGAT0PusUX0KBvQ9iE04w4Uc4VXqdoGCnM0dCpfsUrK64pDT+0hemCREsAoSa8s1xTYadCrLrr782d1GWtVc/seSnItAs40HByIwWOxCWLhDJ6Uk0xdmtf+lLoHFF7Sn4H7a3auhRjpdWpaIMmn2yjXhnPNPQKBgQDm+VtR33gnBzdMiesqT5DQBYN0yWGPwC8synaKVuowARl/LAbeKb+4LIomH73XV531Ue502FvDFIxCcIqV9vJ8fkDsLX0cvTs2W4eQwkvj0SNqhpdusZdyra/DX/hG5aAedy2qOlMMQqMcPpplXuDpjS32KHmRPeGdVFMpkvz8NwKBgQCaqWhfdK6spPAPby+dq0dUS+b6dA/R/HG9CDG9nevceqzsa4cE/lCHmbDXrOE2NGuREWeLUvVO6v6uoplZHd2pVMzCCpbfCSdGKMptCFw7r6yEXSspNUMpMnXz1Kk1qEHEvo1OdNxdqi5yQk985NwsYaLvpRldrD2ZkVfp0nKaGQKBgBCihOEwpwaojmMEy9sQP+27d+xBVLV1sfAX5NGx0MwESEHQee4mM5igHJMCVjncJZQ1gmcH7hPututSD6kdT/mHXkWkQQ6A0nLnxKu4Up7lwRc6+k0OnUm1GKOJlegFQbLwAmnwKWsIoZa3K4eBfdFUSasg3yCGxGkAWbz0ySOhAoGAFb2dTjR4StiCtZB6uNEYwX3sbG8sCpUFzgJ3vu9tlAw9aaT/q4N0lrZ8IZNGuLQvToZQfLA/JDStRnYuE3lbnno6yTQcvPNZQySsKFjOIr/1fIg+Ir924r7juRcMWUAFRLE9oF01uXx6/t7IPMZ4LDkE/VfphYk4210mjJSiOAE=\n-----END PRIVATE KEY-----";
const key = new TextEncoder().encode("0123456789abcdef0123456789abcdef");

export default async () => {
  const token = await new SignJWT({ role: "admin" }).setProtectedHeader({ alg: "HS256" }).setIssuer("nex").setAudience("shop")
    .setIssuedAt(1_700_000_000).setExpirationTime(4_102_444_800).sign(key);
  const { payload, protectedHeader } = await jwtVerify(token, key, { issuer: "nex", audience: "shop" });
  const why = async (token, options) => jwtVerify(token, key, options).catch((error) => [error instanceof errors.JOSEError, error.code]);
  const expired = await new SignJWT({}).setProtectedHeader({ alg: "HS512" }).setExpirationTime(1).sign(key);
  // Tokens as identity providers sign them, checked by a set of public keys.
  const signed = {};
  for (const alg of ["ES256", "ES384", "EdDSA"]) {
    const { privateKey, publicKey } = await generateKeyPair(alg === "EdDSA" ? "Ed25519" : alg, { extractable: true });
    const set = createLocalJWKSet({ keys: [{ ...await exportJWK(publicKey), kid: "one", alg: alg === "EdDSA" ? "Ed25519" : alg }] });
    const token = await new SignJWT({ sub: "user" }).setProtectedHeader({ alg: alg === "EdDSA" ? "Ed25519" : alg, kid: "one" }).sign(privateKey);
    signed[alg] = (await jwtVerify(token, set)).payload.sub;
  }
  const sealed = await new CompactEncrypt(key).setProtectedHeader({ alg: "dir", enc: "A256GCM" }).encrypt(key);
  const opened = new TextDecoder().decode((await compactDecrypt(sealed, key)).plaintext);
  const rsa = await importPKCS8(PKCS8, "RS256");
  const rs256 = await new SignJWT({ sub: "user" }).setProtectedHeader({ alg: "RS256" }).sign(rsa);
  return { signed, opened, rs256, thumbprint: await calculateJwkThumbprint({ kty: "oct", k: "AAAA" }), token, payload, protectedHeader, decoded: decodeJwt(token).role, forged: await why(`${token.slice(0, -4)}AAAA`), audience: await why(token, { audience: "x" }), expired: await why(expired), base64: base64url.encode("hä?") };
};
