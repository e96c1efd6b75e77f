import { SignJWT, base64url, decodeJwt, errors, jwtVerify } from "jose";

const key = new TextEncoder().encode("0123456789abcdef0123456789abcdef");

export default async () => {
  const token = await new SignJWT({ role: "admin" }).setProtectedHeader({ alg: "HS256" }).setIssuer("nex").setAudience("shop")
    .setIssuedAt(1_700_000_000).setExpirationTime(4_102_444_800).sign(key);
  const { payload, protectedHeader } = await jwtVerify(token, key, { issuer: "nex", audience: "shop" });
  const why = async (token, options) => jwtVerify(token, key, options).catch((error) => [error instanceof errors.JOSEError, error.code]);
  const expired = await new SignJWT({}).setProtectedHeader({ alg: "HS512" }).setExpirationTime(1).sign(key);
  return { token, payload, protectedHeader, decoded: decodeJwt(token).role, forged: await why(`${token.slice(0, -4)}AAAA`), audience: await why(token, { audience: "x" }), expired: await why(expired), base64: base64url.encode("hä?") };
};
