import nacl from "tweetnacl";

export default () => {
  const pair = nacl.sign.keyPair.fromSeed(new Uint8Array(32).fill(7));
  const message = new TextEncoder().encode("hello");
  const [key, nonce] = [nacl.randomBytes(32), nacl.randomBytes(24)];
  return [[...nacl.sign.detached(message, pair.secretKey)].slice(0, 8), nacl.sign.detached.verify(message, nacl.sign.detached(message, pair.secretKey), pair.publicKey), new TextDecoder().decode(nacl.secretbox.open(nacl.secretbox(message, nonce, key), nonce, key))];
};
