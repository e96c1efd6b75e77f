import { parsePhoneNumberFromString } from "libphonenumber-js";

export default () => ["+49 30 901820", "030 901820", "12"].map((text) => { const n = parsePhoneNumberFromString(text, "DE"); return n && [n.number, n.isValid(), n.formatInternational(), n.country]; });
