import bcrypt from "bcryptjs";

export default async () => {
  const hash = await bcrypt.hash("secret", "$2b$04$abcdefghijklmnopqrstuu");
  return [hash, await bcrypt.compare("secret", hash), await bcrypt.compare("other", hash), (await bcrypt.genSalt(4)).length];
};
