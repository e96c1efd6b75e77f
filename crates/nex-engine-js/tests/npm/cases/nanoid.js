import { customAlphabet, nanoid } from "nanoid";

export default () => [nanoid().length, nanoid(8).length, nanoid() !== nanoid(), /^[abc]{12}$/.test(customAlphabet("abc", 12)())];
